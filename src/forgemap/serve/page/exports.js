// exports.js: what is taken away: PNGs, JSON and the report, each at the threshold that is set.

import { analyze, blobOf, report } from "./api.js";
import { $, download, say } from "./dom.js";
import { optionsOf } from "./intake.js";
import { explain } from "./words.js";

/** Is the threshold that is set the one that the server drew its regions with? */
export const isOwn = (item) => Math.abs(item.threshold - item.result.threshold) < 0.005;

/** The server's result for the threshold that is set now, judged again where it must be. */
async function exported(item, kind, again) {
  const own = isOwn(item);
  const key = own ? item.result.threshold : item.threshold.toFixed(2);
  const known = item.results.get(key);
  const enough = known && (kind === "json" || (kind === "report" ? known.result : known[kind]));
  if (again || !enough) {
    const extra = { model: item.model?.name, ...(own ? {} : { threshold: key }) };
    item.results.set(key, await analyze(item.file, optionsOf([], "heatmap,mask,overlay", extra)));
  }
  return item.results.get(key);
}

const stem = (name) => name.replace(/\.[^.]+$/, "");

/** A result without what only this server can resolve. */
function plain(result) {
  const own = ["mask", "heatmap", "overlay", "confidence_map", "picture", "result", "expires"];
  return Object.fromEntries(Object.entries(result).filter(([name]) => !own.includes(name)));
}

async function fileOf(pictures, kind, again) {
  const results = [];
  for (const item of pictures) results.push(await exported(item, kind, again));
  if (kind === "report") return report(results.map((r) => r.result), "Forgemap report");
  if (kind === "json") {
    return new Blob([JSON.stringify(results.map(plain), null, 1)], { type: "application/json" });
  }
  return blobOf(results[0][kind]);
}

/** Makes a file and saves it; the server may have forgotten results, which are then made again. */
async function exporting(pictures, kind, name) {
  const blob = await fileOf(pictures, kind, false).catch((error) => {
    if (error.status !== 404) throw error;
    return fileOf(pictures, kind, true);
  });
  download(blob, name);
  say(`${name} is ready`);
}

function onExport(button, pictures, kind, name, trouble) {
  button.addEventListener("click", async () => {
    trouble("");
    button.ariaBusy = "true";
    button.disabled = true;
    try {
      await exporting(pictures(), kind, name());
    } catch (error) {
      trouble(explain(error));
    } finally {
      button.disabled = false;
      button.ariaBusy = "false";
    }
  });
}

/**
 * Makes the buttons work. `current()` is the picture that is shown, `finished()` all that were judged,
 * `trouble(sentence)` shows what went wrong; "" takes it away.
 */
export function onExports({ current, finished, trouble }) {
  const endings = { report: "report.html", json: "json" };
  for (const button of document.querySelectorAll("[data-export]")) {
    const kind = button.dataset.export;
    const name = () => `${stem(current().name)}.${endings[kind] ?? `${kind}.png`}`;
    onExport(button, () => [current()], kind, name, trouble);
  }
  onExport($("batch-report"), finished, "report", () => "report.html", trouble);
  onExport($("batch-json"), finished, "json", () => "report.json", trouble);
}
