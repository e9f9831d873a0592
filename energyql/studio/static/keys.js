// Shortcuts, and the sheet that lists them.

import { $, button, h, typing } from "./dom.js";

const LIST = [
  ["Everywhere", [
    ["/", "to the query"],
    ["Ctrl Enter", "draw"],
    ["R", "another seed, and draw"],
    ["B  S  H  V", "panels: build, settings, history, favourites"],
    ["?", "this list"],
  ]],
  ["In the query", [
    ["Enter", "draw"],
    ["Shift Enter", "begin a line"],
    ["Tab", "complete a word"],
    ["Ctrl Space", "list completions"],
  ]],
  ["On the pictures", [
    ["← → ↑ ↓", "move"],
    ["Enter", "open"],
    ["F", "favourite"],
    ["X", "select, also Ctrl and click"],
  ]],
  ["In an open picture", [
    ["← →", "previous, next"],
    ["Ctrl Z", "undo a step"],
    ["Escape", "close"],
  ]],
];
const PANELS = { b: "build", s: "settings", h: "history", v: "tray" };

// `actions`: draw, focus, dice, go(by), favour, open() whether a picture is open, panels.
export function startKeys(actions) {
  const sheet = $("help");
  sheet.replaceChildren(
    h("div", { class: "view-head" }, h("h2", { id: "help-name" }, "Shortcuts"), h("span", { class: "gap" }), button("Close", () => sheet.close(), { class: "plain close" })),
    h("div", { class: "keys" }, LIST.map(([title, keys]) => h("section", {}, h("h3", {}, title), h("dl", {}, keys.flatMap(([key, what]) => [h("dt", {}, key.split(/ (?=\S)/).map((one) => h("kbd", {}, one.trim()))), h("dd", {}, what)]))))),
  );
  sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });
  $("help-open").addEventListener("click", () => sheet.showModal());
  document.addEventListener("keydown", (event) => {
    if (sheet.open) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !actions.open()) { actions.draw(); return; }
    if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "?") { event.preventDefault(); sheet.showModal(); return; }
    if (actions.open()) inPicture(event, actions);
    else onPage(event, actions);
  });
}

function inPicture(event, actions) {
  if (event.target.matches?.("input[type=range]")) return;
  if (event.key === "ArrowLeft") actions.go(-1);
  else if (event.key === "ArrowRight") actions.go(1);
  else if (event.key.toLowerCase() === "f") actions.favour();
}

function onPage(event, actions) {
  const key = event.key.toLowerCase();
  if (key === "/") { event.preventDefault(); actions.focus(); }
  else if (key === "r") actions.dice();
  else if (PANELS[key]) actions.panels.open(PANELS[key]);
}
