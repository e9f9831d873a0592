// The wall of pictures, made from the run, its edits, the selection and the tray.

import { working } from "./api.js";
import { doubts, shown } from "./clauses.js";
import { $, badge, h, mark, plural } from "./dom.js";

export class Wall {
  // `actions`: open(picture), select(picture), favour(picture).
  constructor(store, actions) {
    Object.assign(this, { store, actions, run: null, tiles: [], drawn: [] });
    $("wall").addEventListener("keydown", (event) => this.key(event));
    store.on(["run", "selected", "tray"], (state) => this.show(state));
  }

  // Empty tiles, so that the page does not jump while pictures arrive; they are removed when the run has ended.
  show({ run, selected, tray }) {
    if (!run) return;
    if (run !== this.run) {
      this.run = run;
      this.drawn = [];
      this.tiles = [];
      $("wall").replaceChildren();
    }
    const places = working(run.job) ? run.job.total : run.pictures.length;
    while (this.tiles.length > places) { this.tiles.pop().remove(); this.drawn.length = this.tiles.length; }
    while (this.tiles.length < places) {
      this.tiles.push(h("li", { class: "empty", "aria-hidden": "true" }, h("span", { class: "frame" })));
      $("wall").append(this.tiles[this.tiles.length - 1]);
    }
    const favoured = new Set(tray.filter(({ key }) => key === run.key).map(({ index }) => index));
    for (const picture of run.pictures) this.place(picture, run.edits.get(picture.index), selected.has(picture.index), favoured.has(picture.index));
    $("wall").classList.toggle("choosing", selected.size > 0);
    this.settle();
  }

  // Replace a tile only after a change, so that the focus stays.
  place(picture, edit, selected, favoured) {
    const last = edit?.pictures[edit.pictures.length - 1];
    const known = [last ?? picture, edit?.steps.length ?? 0, Boolean(edit?.busy), selected, favoured];
    const before = this.drawn[picture.position];
    if (before && known.every((part, place) => part === before[place])) return;
    this.drawn[picture.position] = known;
    const old = this.tiles[picture.position];
    const focused = old.contains(document.activeElement) ? document.activeElement.className : "";
    const tile = this.tile(picture, edit, last, selected, favoured);
    const stop = old.querySelector(".tile")?.tabIndex;
    old.replaceWith(tile);
    this.tiles[picture.position] = tile;
    if (stop === 0) tile.querySelector(".tile").tabIndex = 0;
    if (focused) tile.getElementsByClassName(focused)[0]?.focus();
  }

  tile(picture, edit, last, selected, favoured) {
    const shownNow = last ?? picture;
    const holds = last ? last.keeps_query ?? last.satisfied : picture.satisfied;
    const fails = holds === false ? "misses" : last?.satisfied === false ? "edit failed" : "";
    const image = h("img", { src: shownNow.image, alt: shownNow.alt, width: picture.width, height: picture.height });
    if (picture.width <= 64) image.classList.add("small");
    const steps = edit?.steps.length ?? 0;
    const small = (name, label, on, action, sign) => h("button", { type: "button", class: `mini ${name}`, tabindex: -1, "aria-pressed": String(on), "aria-label": `${label}, picture ${picture.index}`, title: label, onclick: action }, sign);
    return h(
      "li",
      { class: [fails ? "no" : mark(holds), selected ? "chosen" : "", edit?.busy ? "busy" : ""].join(" ").trim() },
      h(
        "button",
        { type: "button", class: "tile", dataset: { position: picture.position }, onclick: (event) => this.click(event, picture) },
        h("span", { class: "frame" }, image, h("span", { class: "opens" }, "Open and edit")),
      ),
      h(
        "span",
        { class: "below" },
        h("span", { class: "says" }, badge(fails ? false : holds), fails ? h("strong", {}, fails) : null, h("span", { class: "count" }, last ? plural(steps, "edit") : shown(picture)),
          steps && !last ? h("span", {}, plural(steps, "edit")) : null,
          picture.doubtful && !last ? h("span", { class: "doubt", title: DOUBT }, "doubtful") : null),
        h("span", { class: "number" }, `#${picture.index}`),
        small("choose", "Select (X)", selected, () => this.actions.select(picture), selected ? "☑" : "☐"),
        small("heart", "Favourite (F)", favoured, () => this.actions.favour(picture), favoured ? "♥" : "♡"),
      ),
      last ? null : doubts(picture, this.run.job.clauses, this.run.language),
    );
  }

  // A click with Ctrl, or while others are selected, selects the picture.
  click(event, picture) {
    const selecting = event.ctrlKey || event.metaKey || event.shiftKey;
    this.actions[selecting ? "select" : "open"](picture);
  }

  // One stop of the Tab key; arrow keys move inside.
  settle(focused) {
    const tiles = [...$("wall").querySelectorAll(".tile")];
    const current = focused || tiles.find((tile) => tile.tabIndex === 0 && tile.hasAttribute("tabindex")) || tiles[0];
    for (const tile of tiles) tile.tabIndex = tile === current ? 0 : -1;
    if (focused) focused.focus();
  }

  key(event) {
    const tiles = [...$("wall").querySelectorAll(".tile")];
    const place = tiles.indexOf(event.target.closest(".tile"));
    if (place < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const picture = this.run.pictures[place];
    const act = { x: "select", f: "favour" }[event.key.toLowerCase()];
    if (act) { event.preventDefault(); this.actions[act](picture); return; }
    const first = tiles[0].getBoundingClientRect().top;
    const columns = tiles.filter((tile) => Math.abs(tile.getBoundingClientRect().top - first) < 2).length;
    const target = {
      ArrowLeft: tiles[place - 1],
      ArrowRight: tiles[place + 1],
      ArrowUp: tiles[place - columns],
      ArrowDown: tiles[place + columns],
      Home: tiles[0],
      End: tiles[tiles.length - 1],
    }[event.key];
    if (!target) return;
    event.preventDefault();
    this.settle(target);
  }

  focus(index) {
    const picture = this.run?.pictures.find((each) => each.index === index);
    const tile = picture && $("wall").querySelector(`[data-position="${picture.position}"]`);
    if (tile) this.settle(tile);
  }
}

export const DOUBT = "Two sets of heads disagree about this picture, or it lies unusually far from the pictures that the model was trained on.";
