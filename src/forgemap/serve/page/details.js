// details.js: fills the cards beside the picture: verdict, regions, metadata, facts.

import { $, el, facts } from "./dom.js";
import { WHOLE, blindSpots, bytes, looks, meaning, percent } from "./words.js";

/** The badge of a verdict: symbol, word and colour say the same. */
export function badge(result) {
  const look = looks(result);
  const word = result.verdict ?? "not readable";
  return el("span", { className: `badge ${look.style}` }, el("span", { ariaHidden: "true" }, look.mark), ` ${word}`);
}

export function showVerdict(item) {
  const { result } = item;
  const look = looks(result);
  $("verdict").className = `verdict ${result ? look.style : ""}`;
  $("name").textContent = item.name;
  $("headline").replaceChildren(
    ...(result ? [el("span", { ariaHidden: "true", className: "mark" }, look.mark), ` ${look.headline}`] : []),
  );
  $("reason").textContent = result ? (result.error ?? result.reason) : "";
  showWhole(result);
  const judged = Boolean(result) && result.score !== null && Boolean(result.decision);
  $("scale").hidden = !judged;
  if (!judged) return;
  const { clear_below: low, manipulated_at: high } = result.decision;
  $("score").textContent = result.score.toFixed(3);
  const [clear, inconclusive, manipulated, pin] = $("bar").children;
  clear.style.flexGrow = low;
  inconclusive.style.flexGrow = high - low;
  manipulated.style.flexGrow = 1 - high;
  pin.style.left = `${result.score * 100}%`;
  $("bar").ariaLabel =
    `Score ${result.score.toFixed(3)} on a scale from 0 to 1. Below ${low.toFixed(3)}: no sign of ` +
    `editing. From ${high.toFixed(3)} on: edited.`;
  $("meaning").textContent = meaning(result);
}

/** The second answer, was the whole picture generated?, and what the two say together. */
function showWhole(result) {
  const whole = result?.generated;
  $("whole").hidden = $("summary").hidden = !whole;
  if (!whole) return;
  const look = WHOLE[whole.verdict];
  $("whole").replaceChildren(
    el("span", { className: `badge ${look.style}` }, el("span", { ariaHidden: "true" }, look.mark), ` ${look.headline}`),
    ` ${whole.reason} ${whole.notes.join("; ")}`,
  );
  $("summary").replaceChildren(result.disagree ? el("strong", {}, result.summary) : result.summary);
}

/** `choose(index)` is called when a region is picked. */
export function showRegions(regions, marked, threshold, own, choose) {
  const count = regions.length;
  $("regions-note").textContent = count
    ? `${percent(marked)} of the picture lies above the threshold ${threshold.toFixed(2)}${own ? "" : ", which you set"}.`
    : `Nothing reaches the threshold ${threshold.toFixed(2)}${own ? "" : ", which you set"}.`;
  $("regions").replaceChildren(
    ...regions.map((region, index) =>
      el(
        "button",
        { type: "button", className: "region", onclick: () => choose(index) },
        el("span", { className: "number" }, el("span", { className: "hidden" }, "Region "), `${index + 1}`),
        el(
          "span",
          { className: "region-score" },
          el("span", { className: "meter", ariaHidden: "true" }, meterOf(region.score)),
          el("span", { className: "hidden" }, "score "),
          region.score.toFixed(2),
        ),
        el("span", { className: "soft" }, `${percent(region.area)}`, el("span", { className: "hidden" }, " of the picture")),
      ),
    ),
  );
}

function meterOf(score) {
  const bar = el("span");
  bar.style.width = `${score * 100}%`;
  return bar;
}

export function showCards(item, model) {
  const { result, file } = item;
  $("blind").replaceChildren(...blindSpots(result, model).map((text) => el("li", {}, text)));
  showOrigin(result.metadata);
  facts($("facts"), [
    ["Size", result.width && `${result.width} × ${result.height} pixels, ${bytes(file.size)}`],
    ["Format", [result.format, result.jpeg_quality && `quality about ${result.jpeg_quality}`].filter(Boolean).join(", ")],
    ["Occurs twice", copies(result)],
    ["Turned", result.orientation > 1 ? `by EXIF orientation ${result.orientation}` : ""],
    ["SHA-256", result.sha256 && el("code", {}, result.sha256)],
    ["Model", result.model],
    ["As a whole judged by", result.generated?.model],
    ["Weights", model && el("code", {}, model.weights_sha256)],
    ["Confidence of the mask", confidence(result)],
    ["Calibrated on", result.decision?.calibrated_on || (result.decision ? "nothing: thresholds as they came" : "")],
    ["Judged in", result.seconds === null || result.seconds === undefined ? "" : `${result.seconds.toFixed(2)} s`],
    ["Notes", (result.notes ?? []).join("; ")],
  ]);
}

/** Which regions the picture shows twice. */
const copies = ({ copies: found = [] }) =>
  found.map(({ box, origin_box: from }) => `${corners(box)} shows ${corners(from)} once more`).join("; ");

const corners = ([x0, y0, x1, y1]) => `(${x0}, ${y0} – ${x1}, ${y1})`;

const confidence = ({ mean_confidence: mean }) =>
  typeof mean === "number" ? `${mean.toFixed(2)} on average, from 0.50 (a coin’s toss) to 1` : "";

function showOrigin(metadata) {
  const findings = metadata?.findings ?? [];
  $("findings").hidden = !findings.length;
  $("findings").replaceChildren(...findings.map((text) => el("li", {}, text)));
  const rows = metadata
    ? [
        ["Camera", metadata.camera],
        ["Lens", metadata.lens],
        ["Software", metadata.software],
        ["Taken", metadata.taken],
        ["Changed", metadata.modified],
        ["Place", metadata.gps ? "the file holds GPS co-ordinates" : ""],
        ["Made by", metadata.source_type],
        ["Thumbnail", thumbnail(metadata.thumbnail)],
        ["Content credentials", metadata.c2pa],
      ]
    : [];
  facts($("origin"), rows);
  const nothing = !findings.length && !rows.some(([, value]) => value);
  $("origin-none").hidden = !nothing;
  $("origin-none").textContent = metadata
    ? "Nothing: it names no camera, software, date or credentials."
    : "This server does not read it.";
}

function thumbnail(found) {
  if (!found) return "";
  const size = `${found.width} × ${found.height} pixels`;
  return found.differs ? `${size}, differs from the picture` : `${size}, shows the same picture`;
}
