// Small functions that make elements. Text is never parsed as markup, except by `drawing`.

export const $ = (id) => document.getElementById(id);

export function h(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "dataset") Object.assign(node.dataset, value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// A drawing in SVG that the studio sent; it is parsed as an inert document, so that no script in it runs.
export function drawing(markup) {
  return document.importNode(new DOMParser().parseFromString(markup, "text/html").body.firstElementChild, true);
}

// The verdict of the judge on a picture, if there is one.
export const mark = (satisfied) => (satisfied === null ? "" : satisfied ? "yes" : "no");

export function badge(satisfied) {
  if (satisfied === null) return null;
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#${mark(satisfied)}`);
  svg.setAttribute("class", `badge ${mark(satisfied)}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function say(text) {
  $("said").textContent = "";
  requestAnimationFrame(() => { $("said").textContent = text; });
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export async function copy(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { /* not allowed here: use the old way */ }
  const area = h("textarea", { class: "hidden" });
  area.value = text;
  (document.querySelector("dialog[open]") || document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// A button that copies a text, and shows for a moment that it has.
export async function copyFrom(button, text) {
  const done = await copy(text);
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  button.textContent = done ? "Copied" : "Not copied";
  say(done ? "The link is copied" : "The link could not be copied");
  setTimeout(() => { button.textContent = before; }, 1600);
}

export const button = (text, action, extra = {}) => h("button", { type: "button", class: "plain", onclick: action, ...extra }, text);

// Whether a key was pressed in a field for text.
export const typing = ({ target }) => target.matches?.("textarea, input:not([type=range], [type=checkbox], [type=radio]), select");
