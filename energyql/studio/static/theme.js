// Light or dark: the system's choice unless the visitor made one. Galleries keep it under the same name.

import { $ } from "./dom.js";

const NAME = "energyql-colours";

function paint(value) {
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
}

export function startTheme() {
  let known = "";
  try { known = localStorage.getItem(NAME) || ""; } catch { /* no storage */ }
  $("theme").value = known;
  paint(known);
  $("theme").addEventListener("change", ({ target }) => {
    paint(target.value);
    try { localStorage.setItem(NAME, target.value); } catch { /* not stored */ }
  });
}
