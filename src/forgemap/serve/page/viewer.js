// viewer.js: the picture with its layers in one or two OpenSeadragon viewers that move together.
/* global OpenSeadragon */

import { COLOURS, FOG, FOG_COLOUR, paint } from "./heat.js";

const SVG = "http://www.w3.org/2000/svg";
const BLINK_MS = 700; // well below three flashes a second

// OpenSeadragon adds a style element of its own where there is none, which the page's policy forbids:
// an inert element that it takes for it. Its one rule is in style.css.
const rule = document.createElementNS("urn:forgemap", "style");
rule.setAttribute("data-openseadragon-mobile-css", "true");
document.head.append(rule);

/** One viewer: the picture, and over it a canvas for the map and an SVG for the outlines. */
class Stage {
  constructor(element, label) {
    this.view = OpenSeadragon({
      element,
      showNavigationControl: false,
      drawer: "canvas",
      minZoomImageRatio: 0.7,
      maxZoomPixelRatio: 12,
      visibilityRatio: 0.6,
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.35,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    // OpenSeadragon makes its canvas focusable; it needs a name to be announced by.
    this.view.canvas.setAttribute("role", "application");
    this.view.canvas.setAttribute("aria-label", label);
    this.map = document.createElement("canvas");
    this.map.className = "layer";
    this.lines = document.createElementNS(SVG, "svg");
    this.lines.setAttribute("class", "layer lines");
    this.lines.setAttribute("aria-hidden", "true");
    // The whole picture stays in view when the view changes its size, until someone moves it.
    this.fitted = true;
    for (const event of ["canvas-drag", "canvas-scroll", "canvas-pinch", "canvas-double-click"]) {
      this.view.addHandler(event, () => (this.fitted = false));
    }
    this.view.addHandler("canvas-key", (event) => (this.fitted = event.originalEvent.key === "0"));
    this.view.addHandler("resize", () => {
      requestAnimationFrame(() => this.fitted && this.view.viewport?.goHome(true));
    });
    // Pixels are what an analyst wants to see: no smoothing once they are large.
    this.view.addHandler("zoom", () => {
      const item = this.view.world.getItemAt(0);
      if (!item) return;
      const ratio = item.viewportToImageZoom(this.view.viewport.getZoom(true));
      this.view.drawer.setImageSmoothingEnabled(ratio < 3);
    });
  }

  /** Resolves when the picture is on the screen. */
  open(url, width, height) {
    this.lines.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.tags = [];
    this.fitted = true;
    return new Promise((done, failed) => {
      this.view.addOnceHandler("open", () => {
        const location = new OpenSeadragon.Rect(0, 0, 1, height / width);
        this.view.addOverlay({ element: this.map, location });
        this.view.addOverlay({ element: this.lines, location });
        done();
      });
      this.view.addOnceHandler("open-failed", (event) => failed(new Error(event.message)));
      this.view.open({ type: "image", url, buildPyramid: true });
    });
  }

  outline(regions, width) {
    this.lines.replaceChildren(
      ...["under", "over"].flatMap((kind) =>
        regions.map((region) => {
          const path = document.createElementNS(SVG, "path");
          path.setAttribute("d", region.path);
          path.setAttribute("class", kind);
          return path;
        }),
      ),
    );
    for (const tag of this.tags) this.view.removeOverlay(tag);
    this.tags = regions.map((region, index) => {
      const tag = document.createElement("span");
      tag.className = "tag";
      tag.textContent = index + 1;
      tag.setAttribute("aria-hidden", "true");
      const [x0, y0] = region.box;
      const location = new OpenSeadragon.Point(x0 / width, y0 / width);
      this.view.addOverlay({ element: tag, location, placement: "BOTTOM_LEFT", checkResize: false });
      return tag;
    });
  }

  highlight(index) {
    this.lines.querySelectorAll("path").forEach((path, place, all) => {
      path.classList.toggle("chosen", index !== null && place % (all.length / 2) === index);
    });
  }
}

export class Viewer {
  constructor(left, right) {
    this.elements = { left, right };
    this.compare = "overlay";
    this.layer = "heat";
    this.opacity = 0.8;
    this.outlines = true;
    this.leading = null;
    left.closest("figure").hidden = true; // before the right one is measured
  }

  _stage(side, label) {
    const stage = new Stage(this.elements[side], label);
    for (const event of ["zoom", "pan"]) {
      stage.view.addHandler(event, () => this._follow(stage));
    }
    return stage;
  }

  /** Shows a picture: `url` of what the browser can draw, its true size, and its map's levels. */
  async open(url, width, height, levels) {
    Object.assign(this, { url, width, height, levels });
    this.right ??= this._stage("right", "The picture with its map; arrows move, plus and minus zoom");
    this.opened = false;
    await this.right.open(url, width, height);
    this.leftUrl = null;
    this.opened = true;
    await this.setCompare(this.compare);
  }

  async setCompare(compare) {
    this.compare = compare;
    const side = compare === "side";
    this.elements.left.closest("figure").hidden = !side;
    if (side && this.leftUrl !== this.url) {
      this.left ??= this._stage("left", "The picture alone; arrows move, plus and minus zoom");
      this.leftUrl = this.url;
      await this.left.open(this.url, this.width, this.height);
      this.left.map.hidden = true;
      this._follow(this.right);
    }
    clearInterval(this.blinking);
    this.dark = false;
    if (compare === "blink") {
      this.blinking = setInterval(() => {
        this.dark = !this.dark;
        this._visibility();
      }, BLINK_MS);
    }
    this._visibility();
  }

  /** `confidence`: the levels of that layer, where it is the one. */
  setLayer(layer, confidence = null) {
    Object.assign(this, { layer, confidence });
    this.redraw();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this._visibility();
  }

  setOutlines(on) {
    this.outlines = on;
    this._visibility();
  }

  /** Draws the map and these regions at a threshold. */
  draw(threshold, regions) {
    Object.assign(this, { threshold, regions });
    this.redraw();
    this.right.outline(regions, this.width);
    this._visibility();
  }

  redraw() {
    const levels = this.layer === "confidence" ? this.confidence : this.levels;
    if (levels && this.right) paint(this.right.map, levels, this.layer, this.threshold);
    this._visibility();
  }

  _visibility() {
    if (!this.right) return;
    const shown = !this.dark;
    this.right.map.style.opacity = shown && this.layer !== "none" ? this.opacity : 0;
    // Grey under the map, as in the report: then every colour is the map's.
    const grey = shown && ["heat", "confidence"].includes(this.layer) ? Math.min(1, this.opacity * 1.25) : 0;
    this.right.view.drawer.canvas.style.filter = grey ? `grayscale(${grey})` : "";
    const lines = shown && this.outlines ? 1 : 0;
    this.right.lines.style.opacity = lines;
    for (const tag of this.right.tags ?? []) tag.style.opacity = lines;
  }

  _follow(leader) {
    const other = leader === this.right ? this.left : this.right;
    if (this.compare !== "side" || this.leading || !other?.view.world.getItemCount()) return;
    this.leading = leader;
    other.fitted = leader.fitted;
    other.view.viewport.zoomTo(leader.view.viewport.getZoom(), null);
    other.view.viewport.panTo(leader.view.viewport.getCenter());
    this.leading = null;
  }

  zoomBy(factor) {
    this.right.fitted = false;
    this.right.view.viewport.zoomBy(factor).applyConstraints();
  }

  fit() {
    this.right.fitted = true;
    this.right.view.viewport.goHome();
  }

  full() {
    const { viewport, world } = this.right.view;
    this.right.fitted = false;
    viewport.zoomTo(world.getItemAt(0).imageToViewportZoom(1 / devicePixelRatio)).applyConstraints();
  }

  /** Moves to a region and marks its outline. */
  show(index) {
    const [x0, y0, x1, y1] = this.regions[index].box.map((n) => n / this.width);
    const margin = Math.max(0.02, 0.6 * Math.max(x1 - x0, y1 - y0));
    const box = new OpenSeadragon.Rect(
      x0 - margin, y0 - margin, x1 - x0 + 2 * margin, y1 - y0 + 2 * margin,
    );
    this.right.fitted = false;
    this.right.view.viewport.fitBoundsWithConstraints(box);
    this.right.highlight(index);
  }
}

/** From sure to unsure, as a CSS gradient. */
export const fog = `linear-gradient(90deg, rgb(${FOG_COLOUR.join(" ")} / 0), rgb(${FOG_COLOUR.join(" ")} / ${FOG}))`;

/** The heat map's colours as a CSS gradient. */
export const ramp = `linear-gradient(90deg, ${COLOURS.map((c, i) => {
  const alpha = Math.min(1, Math.max(0, (i / 15 - 0.1) / 0.4));
  return `rgb(${c.join(" ")} / ${alpha.toFixed(2)})`;
}).join(", ")})`;
