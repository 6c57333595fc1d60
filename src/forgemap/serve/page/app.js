// app.js: the page: pictures come in, are judged by the server, and one of them is shown.

import { analyze, analyzeMany, blobOf, models, onLogin } from "./api.js";
import { badge, showCards, showRegions, showVerdict } from "./details.js";
import { $, el, say } from "./dom.js";
import { isOwn, onExports } from "./exports.js";
import { levelsOf, pathOf, regionsAt } from "./heat.js";
import { batches, onFiles, optionsOf } from "./intake.js";
import { Viewer, fog, ramp } from "./viewer.js";
import { bytes, explain, looks } from "./words.js";

const items = []; // {file, name, url, status, result, model, levels, threshold, results}
let current = null;
let server = null; // what GET /v1/models says
let serial = 0;
const viewer = new Viewer($("canvas-left"), $("canvas-right"));

// ---- the server ---------------------------------------------------------------------------------

async function connect() {
  try {
    server = await models();
  } catch (error) {
    $("server").textContent = "No connection";
    trouble(explain(error));
    return false;
  }
  const { limits } = server;
  $("server").textContent = `Judged on ${location.hostname}, version ${server.version}`;
  $("limits").textContent =
    `${limits.formats.join(", ")}; up to ${bytes(limits.max_body)} and ` +
    `${Math.round(limits.max_pixels / 1e6)} megapixels each. Pictures go to ${location.host} and nowhere ` +
    (limits.keeps_uploads
      ? "else. This server was told to keep what is uploaded."
      : `else; the files are forgotten once judged, and what was made of them after ${Math.round(limits.keep_seconds / 60) || 1} minutes.`);
  $("model").replaceChildren(
    ...server.models.map((model) => el("option", { value: model.name }, model.id)),
  );
  $("model-row").hidden = server.models.length < 2;
  return true;
}

onLogin(async (again) => {
  $("login-title").textContent = again ? "That token is not the one" : "This server asks for a token";
  const dialog = $("login");
  if (dialog.open) return null;
  $("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "ok" ? $("token").value : null;
});

// ---- pictures come in ---------------------------------------------------------------------------

async function add(files) {
  files = [...files];
  if (!files.length) return;
  trouble("");
  if (!server && !(await connect())) return;
  const { limits } = server;
  const fresh = files.map((file) => ({
    id: ++serial,
    file,
    name: file.name || "pasted picture",
    url: URL.createObjectURL(file),
    status: "waiting",
    results: new Map(), // threshold -> result, for what is exported
  }));
  items.push(...fresh);
  const large = fresh.filter((item) => item.file.size > limits.max_body);
  for (const item of large) {
    fail(item, `${item.name} has ${bytes(item.file.size)}; this server takes ${bytes(limits.max_body)}. Send a smaller copy, or start the server with a higher limit.`);
  }
  const empty = fresh.filter((item) => !item.file.size);
  for (const item of empty) fail(item, `${item.name} is empty: get a complete copy.`);
  document.body.classList.add("busy");
  $("desk").hidden = false;
  $("intake").classList.add("compact");
  $("desk").classList.toggle("single", items.length === 1);
  list();
  select(fresh[0]);
  say(fresh.length === 1 ? `Judging ${fresh[0].name}` : `Judging ${fresh.length} pictures`);
  await judgeAll(fresh.filter((item) => item.status === "waiting"));
  const failed = fresh.filter((item) => item.status === "failed").length;
  if (fresh.length > 1) say(`${fresh.length - failed} pictures judged${failed ? `, ${failed} could not be` : ""}`);
}

async function judgeAll(pictures) {
  for (const batch of batches(pictures, server.limits)) await judge(batch);
}

/** Judges again what no server answered. */
async function tryAgain() {
  const left = items.filter((item) => item.again);
  trouble("");
  for (const item of left) Object.assign(item, { status: "waiting", again: false, result: undefined });
  $("work").focus(); // the button goes away
  await judgeAll(left);
}

async function judge(batch) {
  for (const item of batch) item.status = "working";
  list();
  refresh();
  try {
    if (batch.length === 1) {
      await done(batch[0], await analyze(batch[0].file, optionsOf(batch, "heatmap,mask,overlay,confidence_map")));
      return;
    }
    await analyzeMany(batch.map((item) => item.file), optionsOf(batch, "heatmap"), (job) => {
      job.pictures.forEach((picture, index) => {
        const item = batch[index];
        if (picture.result && !item.result) done(item, picture.result);
        else if (!item.result) item.status = picture.status;
      });
      list();
    });
    for (const item of batch) if (!item.result) fail(item, "The server stopped before it came to this picture: send it again.", true);
  } catch (error) {
    const passing = error.name === "TypeError" || error.status === 429 || error.status >= 500;
    for (const item of batch) if (!item.result) fail(item, explain(error), passing);
    trouble(explain(error));
  }
  list();
  refresh();
}

function done(item, result) {
  item.result = result;
  item.model = server?.models.find((model) => model.id === result.model);
  item.status = result.error ? "failed" : "done";
  item.threshold = result.threshold;
  item.results.set(result.threshold, result);
  list();
  if (items.length === 1 || item === current) {
    say(`${item.name}: ${looks(result).headline}. ${result.error ?? result.reason ?? ""}`);
  }
  if (item === current) return show(item);
}

function fail(item, sentence, again = false) {
  item.status = "failed";
  item.again = again;
  item.result = { path: item.name, verdict: null, score: null, error: sentence, regions: [], notes: [] };
  if (item === current) show(item);
}

// ---- the list -----------------------------------------------------------------------------------

function list() {
  $("list").replaceChildren(
    ...items.map((item) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", className: `picture ${item.status}`, ariaCurrent: item === current ? "true" : "false", onclick: () => select(item) },
          thumbnail(item),
          el(
            "span",
            { className: "picture-words" },
            el("span", { className: "picture-name" }, item.name),
            item.result ? badge(item.result) : el("span", { className: "soft" }, item.status === "working" ? "being judged …" : "waiting …"),
          ),
        ),
      ),
    ),
  );
  const over = items.filter((item) => item.result).length;
  $("strip-title").textContent = over < items.length ? `${over} of ${items.length} judged` : `${items.length} pictures`;
  $("overall").max = items.length;
  $("overall").value = over;
  $("overall").hidden = over === items.length;
  $("batch").hidden = !(over === items.length && items.some((item) => item.status === "done"));
}

/** The picture, small; a plain square where this browser cannot draw it. */
function thumbnail(item) {
  const square = () => el("span", { className: "blank" });
  if (item.blank) return square();
  const onerror = (event) => {
    item.blank = true;
    event.target.replaceWith(square());
  };
  return el("img", { src: item.url, alt: "", loading: "lazy", decoding: "async", onerror });
}

function select(item) {
  current = item;
  list();
  return show(item);
}

function step(by) {
  const place = items.indexOf(current) + by;
  if (items[place]) select(items[place]);
}

// ---- one picture --------------------------------------------------------------------------------

function refresh() {
  if (current && !current.result) show(current);
}

async function show(item) {
  showVerdict(item);
  const judged = item.status === "done";
  $("again").hidden = !item.again;
  $("side").hidden = $("below").hidden = !judged;
  $("waiting").hidden = Boolean(item.result);
  $("waiting-text").textContent = item.status === "waiting" ? "Waiting for its turn" : "Looking at every pixel …";
  $("viewer").hidden = !judged;
  if (!judged) return;
  const { result } = item;
  showCards(item, item.model);
  $("export-note").textContent = "";
  try {
    item.levels ??= await levelsOf(await output(item, "heatmap"));
    item.shown ??= await drawable(item);
    if (item !== current) return;
    await viewer.open(item.shown, result.width, result.height, item.levels);
    if (item !== current) return;
    const tells = typeof result.mean_confidence === "number";
    document.querySelector("[data-layer=confidence]").hidden = !tells;
    if (viewer.layer === "confidence") layer(tells ? "confidence" : "heat");
    threshold(item.threshold);
  } catch (error) {
    if (item === current) trouble(`The picture cannot be shown: ${explain(error)}`);
  }
}

/** An address of the picture that this browser can draw: the file itself, or what was decoded. */
async function drawable(item) {
  const { result } = item;
  const probe = new Image();
  probe.src = item.url;
  try {
    await probe.decode();
    if (probe.naturalWidth === result.width && probe.naturalHeight === result.height) return item.url;
  } catch {
    // HEIC and TIFF are not for most browsers: the server's copy is.
  }
  item.url = URL.createObjectURL(await output(item, "picture"));
  item.blank = false;
  list();
  return item.url;
}

/** One output of the first judgement as a Blob; made again if the server has forgotten it. */
async function output(item, name) {
  const { result } = item;
  try {
    if (result[name]) return await blobOf(result[name]);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  const extra = { model: item.model?.name, delivery: "inline", outputs: name };
  return blobOf((await analyze(item.file, optionsOf([], name, extra)))[name]);
}

/** Redraws map, outlines and the list of regions for a threshold. */
function threshold(value) {
  const item = current;
  const { result } = item;
  item.threshold = value;
  const own = isOwn(item);
  const { regions, marked } = own
    ? { regions: result.regions.map((r) => ({ ...r, path: pathOf(r.polygon) })), marked: result.area }
    : regionsAt(item.levels, value, result.width, result.height);
  viewer.draw(value, regions);
  showRegions(regions, marked, value, own, (index) => {
    viewer.show(index);
    for (const [place, row] of [...$("regions").children].entries()) row.classList.toggle("chosen", place === index);
  });
  $("threshold").value = Math.round(value * 100);
  $("threshold-value").textContent = value.toFixed(2);
  $("threshold-reset").hidden = own;
  $("export-note").textContent = own
    ? "All of it with the model’s own threshold."
    : `Mask, regions and report with your threshold ${value.toFixed(2)}; the verdict keeps the model’s own.`;
}

let frame = 0;
$("threshold").addEventListener("input", () => {
  cancelAnimationFrame(frame);
  const value = $("threshold").valueAsNumber / 100;
  $("threshold-value").textContent = value.toFixed(2);
  frame = requestAnimationFrame(() => threshold(value));
});
$("threshold").addEventListener("change", () => {
  say(`Threshold ${$("threshold-value").textContent}: ${$("regions").children.length} regions`);
});
$("threshold-reset").addEventListener("click", () => {
  threshold(current.result.threshold);
  $("threshold").focus();
});
$("opacity").addEventListener("input", () => {
  $("opacity-value").textContent = `${$("opacity").value}%`;
  viewer.setOpacity($("opacity").valueAsNumber / 100);
});
$("outlines").addEventListener("change", () => viewer.setOutlines($("outlines").checked));

function segments(name, action) {
  const buttons = [...document.querySelectorAll(`[data-${name}]`)];
  const press = (value) => {
    for (const button of buttons) button.ariaPressed = String(button.dataset[name] === value);
    action(value);
  };
  for (const button of buttons) button.addEventListener("click", () => press(button.dataset[name]));
  return press;
}

const compare = segments("compare", (value) => {
  $("stages").dataset.compare = value;
  viewer.setCompare(value).catch((error) => trouble(explain(error)));
});
const layer = segments("layer", (value) => {
  $("caption-right").textContent = {
    heat: "With the heat map",
    mask: "With the marked area",
    confidence: "In the fog the model cannot tell",
    none: "With the outlines",
  }[value];
  $("fog-key").hidden = value !== "confidence";
  $("heat-key").hidden = value === "confidence";
  if (value === "confidence") showConfidence(current).catch((error) => trouble(explain(error)));
  else viewer.setLayer(value);
});

async function showConfidence(item) {
  item.confidence ??= await levelsOf(await output(item, "confidence_map"));
  if (item === current) viewer.setLayer("confidence", item.confidence);
}


$("zoom-in").addEventListener("click", () => viewer.zoomBy(1.5));
$("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.5));
$("zoom-fit").addEventListener("click", () => viewer.fit());
$("zoom-full").addEventListener("click", () => viewer.full());

// Letters act only while the picture has the focus, so that they disturb no other way of typing.
$("stages").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const sure = typeof current.result.mean_confidence === "number";
  const next = { heat: "mask", mask: sure ? "confidence" : "none", confidence: "none", none: "heat" };
  const actions = {
    h: () => layer(next[viewer.layer]),
    o: () => $("outlines").click(),
    b: () => compare(viewer.compare === "blink" ? "overlay" : "blink"),
    s: () => compare(viewer.compare === "side" ? "overlay" : "side"),
    "[": () => threshold(Math.max(0.01, current.threshold - 0.02)),
    "]": () => threshold(Math.min(0.99, current.threshold + 0.02)),
    j: () => step(1),
    k: () => step(-1),
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  event.stopPropagation();
  action();
}, true);

// ---- the rest -----------------------------------------------------------------------------------

/** Shows what went wrong; "" takes it away. */
function trouble(sentence) {
  $("trouble-text").textContent = sentence;
  $("trouble").hidden = !sentence;
}

$("trouble-close").addEventListener("click", () => trouble(""));
$("about-open").addEventListener("click", () => $("about").showModal());
$("again").addEventListener("click", tryAgain);
onFiles(add);
onExports({ current: () => current, finished: () => items.filter((item) => item.status === "done"), trouble });
$("ramp").style.backgroundImage = ramp;
$("fog").style.backgroundImage = fog;
connect();
