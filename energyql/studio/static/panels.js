// The panels beside the pictures, of which at most one is open, so that the pictures have room.

import { $ } from "./dom.js";
import { keep, recall } from "./store.js";

const wide = matchMedia("(min-width: 64rem)");

export class Panels {
  constructor(store) {
    this.store = store;
    this.toggles = [...document.querySelectorAll("[data-panel]")];
    for (const toggle of this.toggles) {
      toggle.addEventListener("click", () => this.open(store.state.panel === toggle.dataset.panel ? "" : toggle.dataset.panel));
    }
    $("panel-close").addEventListener("click", () => this.open(""));
    $("panel").addEventListener("keydown", (event) => { if (event.key === "Escape") this.open(""); });
    showMore(document.querySelector(".tools"), $("more-tools"));
    store.on(["panel"], ({ panel }) => this.show(panel));
    store.set({ panel: wide.matches ? recall("panel", "") : "" });
  }

  open(name) {
    const before = this.store.state.panel;
    this.store.set({ panel: name });
    if (wide.matches) keep("panel", name);
    if (name) $("panel").scrollTop = 0;
    else this.toggles.find((toggle) => toggle.dataset.panel === before)?.focus();
  }

  // On a narrow screen an open panel covers the pictures; it is closed when pictures are requested.
  makeWay() {
    if (wide.matches || !this.store.state.panel) return;
    const inside = $("panel").contains(document.activeElement);
    this.store.set({ panel: "" });
    if (inside) $("pictures").focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  show(panel) {
    $("panel").hidden = !panel;
    document.querySelector(".bench").classList.toggle("open", Boolean(panel));
    for (const toggle of this.toggles) toggle.setAttribute("aria-expanded", String(toggle.dataset.panel === panel));
    for (const section of $("panel").querySelectorAll(":scope > section")) section.hidden = section.id !== `panel-${panel}`;
  }
}

// A button that scrolls a row, shown while the row is cut off at its end.
function showMore(row, button) {
  const show = () => { button.hidden = row.scrollLeft + row.clientWidth > row.scrollWidth - 8; };
  row.addEventListener("scroll", show);
  // Browsers do not scroll to a focused element that is half visible.
  row.addEventListener("focusin", ({ target }) => {
    if (target.matches(":focus-visible")) target.scrollIntoView({ block: "nearest", inline: "center" });
    show();
  });
  new ResizeObserver(show).observe(row);
  button.addEventListener("click", () => row.scrollBy({ left: row.clientWidth / 2 }));
}

// The size of the pictures on the wall.
export function startSize() {
  const slider = $("size");
  const paint = () => document.documentElement.style.setProperty("--tile", `${slider.value / 16}rem`);
  slider.value = recall("size", wide.matches ? 176 : 112);
  paint();
  slider.addEventListener("input", () => { paint(); keep("size", Number(slider.value)); });
}

// An element that is scrolled to the top stops below the fixed bar.
export function followBar() {
  new ResizeObserver(([entry]) => {
    const fixed = getComputedStyle(entry.target).position === "sticky";
    const height = fixed ? entry.borderBoxSize[0].blockSize : 0;
    document.documentElement.style.setProperty("--bar", `${height}px`);
  }).observe($("ask"));
}
