// dom.js: short names for what every part of the page does with elements.

export const $ = (id) => document.getElementById(id);

/** A new element: properties, then children (elements, or strings that stay text). */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** <dt> and <dd> pairs for [name, value] rows; rows without a value are left out. */
export function facts(list, rows) {
  list.replaceChildren(
    ...rows
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

/** Spoken by screen readers when they have a moment. */
export function say(text) {
  $("live").textContent = text;
}

/** Hands a blob to the browser's downloads. */
export function download(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
