// intake.js: the ways in for pictures, and how they are sent: as one, or in jobs that fit the limits.

import { $ } from "./dom.js";

/** Calls `add` with the files that are chosen, pasted or dropped. */
export function onFiles(add) {
  $("files").addEventListener("change", () => {
    const files = [...$("files").files];
    $("files").value = ""; // so that the same file can be chosen again
    add(files);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) {
      event.preventDefault();
      add(files);
    }
  });
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    $("veil").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("veil").hidden = true;
  });
  addEventListener("drop", (event) => {
    $("veil").hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    add(event.dataTransfer.files);
  });
}

/** Jobs that respect the server's limits; a single picture stays alone. */
export function batches(pictures, limits) {
  const groups = [[]];
  let size = 0;
  for (const item of pictures) {
    const group = groups.at(-1);
    if (group.length && (group.length >= limits.pictures_per_request || size + item.file.size > 0.95 * limits.max_job_body)) {
      groups.push([item]);
      size = item.file.size;
    } else {
      group.push(item);
      size += item.file.size;
    }
  }
  return groups.filter((group) => group.length);
}

// What most browsers cannot draw: the server's decoded copy is asked for.
const foreign = (item) => /\.(tiff?|hei[cf]|hif)$/i.test(item.name) || /hei[cf]|tiff/.test(item.file.type);

export const optionsOf = (pictures, outputs, extra = {}) => ({
  model: $("model").value,
  outputs: pictures.some(foreign) ? `${outputs},picture` : outputs,
  ...extra,
});
