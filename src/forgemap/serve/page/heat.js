// heat.js: the heat map in the browser: its levels, its colours, and its regions at a threshold.
/* global d3 */

// Every 17th of the 256 colours of forgemap/drawing.py (a test compares them), 0 to 1.
export const COLOURS = [
  [128, 31, 108], [144, 37, 104], [160, 42, 99], [177, 50, 90], [192, 58, 81], [206, 67, 71],
  [219, 80, 59], [230, 93, 47], [239, 108, 35], [246, 126, 20], [250, 144, 8], [252, 163, 9],
  [251, 184, 29], [249, 203, 53], [244, 223, 83], [242, 242, 125],
];
// What covers the places where the mask is not sure, and how much at most; drawing.py has the same.
export const FOG_COLOUR = [93, 116, 150];
export const FOG = 0.9;
const MAX_SIDE = 1400; // of the copy that is drawn: enough for a smooth map, quick to redraw
const MAX_REGIONS = 50;

const TABLE = new Uint8ClampedArray(256 * 4);
for (let level = 0; level < 256; level++) {
  const place = level / 17;
  const low = Math.min(14, Math.floor(place));
  for (let c = 0; c < 3; c++) {
    TABLE[4 * level + c] = COLOURS[low][c] + (COLOURS[low + 1][c] - COLOURS[low][c]) * (place - low);
  }
  TABLE[4 * level + 3] = Math.min(1, Math.max(0, (level / 255 - 0.1) / 0.4)) * 255;
}

/** The grey PNG -> {width, height, data: Uint8Array of round(255 p)}, reduced to MAX_SIDE. */
export async function levelsOf(blob) {
  const whole = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const scale = Math.min(1, MAX_SIDE / Math.max(whole.width, whole.height));
  const width = Math.max(1, Math.round(whole.width * scale));
  const height = Math.max(1, Math.round(whole.height * scale));
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(whole, 0, 0, width, height);
  whole.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height);
  for (let i = 0; i < data.length; i++) data[i] = rgba[4 * i];
  return { width, height, data };
}

/**
 * Paints the levels on a canvas: "heat" in colours, "mask" as one tint from the threshold on,
 * "confidence" (levels of round(255 c), from 128 on) as fog where it is low.
 */
export function paint(canvas, levels, layer, threshold) {
  const { width, height, data } = levels;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const table = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(table.buffer);
  if (layer === "mask") {
    for (let level = Math.ceil(threshold * 255); level < 256; level++) {
      bytes.set([250, 144, 8, 255], 4 * level);
    }
  } else if (layer === "confidence") {
    for (let level = 0; level < 256; level++) {
      const alpha = Math.min(1, (1 - level / 255) * 2) * FOG * 255;
      bytes.set([...FOG_COLOUR, alpha], 4 * level);
    }
  } else if (layer === "heat") bytes.set(TABLE);
  for (let i = 0; i < data.length; i++) pixels[i] = table[data[i]];
  context.putImageData(picture, 0, 0);
}

/**
 * The regions at a threshold, largest and surest first, in pixels of a picture of `width` x `height`:
 * {box, score, area, path}, where path is SVG data of its outlines. `marked`: share of the picture.
 */
export function regionsAt(levels, threshold, width, height) {
  const cut = threshold * 255;
  const { labels, sums } = components(levels, cut);
  const sx = width / levels.width;
  const sy = height / levels.height;
  const least = Math.max(16 / (sx * sy), 0.0002 * labels.length);
  const large = sums.filter((part) => part.count >= least);
  large.sort((a, b) => b.sum - a.sum);
  const regions = new Map(
    large.slice(0, MAX_REGIONS).map((part) => [
      part.label,
      {
        box: [part.x0 * sx, part.y0 * sy, (part.x1 + 1) * sx, (part.y1 + 1) * sy].map(Math.round),
        score: part.sum / part.count / 255,
        area: part.count / labels.length,
        path: "",
      },
    ]),
  );
  const [shape] = d3.contours().size([levels.width, levels.height]).thresholds([cut])(levels.data);
  for (const polygon of shape.coordinates) {
    const region = regions.get(labelAt(labels, levels, polygon[0]));
    if (!region) continue;
    for (const ring of polygon) {
      const points = ring.map(([x, y]) => `${(x * sx).toFixed(1)} ${(y * sy).toFixed(1)}`);
      region.path += `M${points.join("L")}Z`;
    }
  }
  const marked = sums.reduce((total, part) => total + part.count, 0) / labels.length;
  return { regions: [...regions.values()], marked };
}

/** Connected parts at or above `cut` (eight neighbours), by flood fill. */
function components({ width, height, data }, cut) {
  const labels = new Int32Array(data.length);
  const sums = [];
  const stack = [];
  for (let start = 0; start < data.length; start++) {
    if (labels[start] || data[start] < cut) continue;
    const label = sums.length + 1;
    const part = { label, count: 0, sum: 0, x0: width, y0: height, x1: 0, y1: 0 };
    labels[start] = label;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop();
      const x = at % width;
      const y = (at - x) / width;
      part.count++;
      part.sum += data[at];
      part.x0 = Math.min(part.x0, x);
      part.x1 = Math.max(part.x1, x);
      part.y0 = Math.min(part.y0, y);
      part.y1 = Math.max(part.y1, y);
      for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny++) {
        for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx++) {
          const next = ny * width + nx;
          if (labels[next] || data[next] < cut) continue;
          labels[next] = label;
          stack.push(next);
        }
      }
    }
    sums.push(part);
  }
  return { labels, sums };
}

/** The component that an outline runs around: the first labelled pixel beside its points. */
function labelAt(labels, { width, height }, ring) {
  for (const [px, py] of ring) {
    for (const [dx, dy] of [[-0.75, -0.75], [0.75, -0.75], [-0.75, 0.75], [0.75, 0.75]]) {
      const x = Math.floor(px + dx);
      const y = Math.floor(py + dy);
      if (x < 0 || y < 0 || x >= width || y >= height) continue;
      const label = labels[y * width + x];
      if (label) return label;
    }
  }
  return 0;
}

/** SVG path data of a polygon of the server's report. */
export function pathOf(polygon) {
  return `M${polygon.map(([x, y]) => `${x + 0.5} ${y + 0.5}`).join("L")}Z`;
}
