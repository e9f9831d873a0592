// The wall of pictures, and how sure each part of the query is.

import { $, badge, h, mark } from "./dom.js";

export const shown = (picture) =>
  picture.probability !== null ? `P ${picture.probability.toFixed(3)}` : picture.energy !== null ? `E ${picture.energy.toFixed(2)}` : "E ∞";

export class Wall {
  constructor(open) {
    this.open = open;
    this.tiles = [];
    this.pictures = [];
    $("wall").addEventListener("keydown", (event) => this.key(event));
  }

  // Empty places, so that the page does not jump while pictures come.
  reset(total) {
    this.pictures = [];
    this.tiles = Array.from({ length: total }, () => h("li", { class: "empty", "aria-hidden": "true" }, h("span", { class: "frame" })));
    $("wall").replaceChildren(...this.tiles);
    $("wall").classList.toggle("many", total > 8);
    $("nothing").hidden = true;
    $("clauses").hidden = true;
  }

  add(pictures, clauses) {
    for (const picture of pictures) {
      const tile = this.tile(picture, clauses);
      this.tiles[picture.position].replaceWith(tile);
      this.tiles[picture.position] = tile;
      this.pictures.push(picture);
    }
    this.settle();
  }

  // What was not drawn leaves no empty place behind.
  trim() {
    for (const tile of this.tiles.splice(this.pictures.length)) tile.remove();
  }

  tile(picture, clauses) {
    const image = h("img", { src: picture.image, alt: picture.alt, width: picture.width, height: picture.height });
    if (picture.width <= 64) image.classList.add("small");
    return h(
      "li",
      { class: mark(picture.satisfied) },
      h(
        "button",
        { type: "button", class: "tile", dataset: { position: picture.position }, onclick: () => this.open(picture) },
        h("span", { class: "frame" }, image, badge(picture.satisfied)),
        bars(picture, clauses),
        h("span", { class: "below" }, shown(picture), h("span", { class: "number" }, `#${picture.index}`)),
      ),
    );
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

  neighbour(picture, by) {
    return this.pictures.find(({ position }) => position === picture.position + by) || null;
  }

  focus(position) {
    const tile = $("wall").querySelector(`[data-position="${position}"]`);
    if (tile) this.settle(tile);
  }
}

// One thin bar a clause, under its picture.
function bars(picture, clauses) {
  if (clauses.length < 2 || clauses.length > 8) return null;
  return h("span", { class: "bars", "aria-hidden": "true" }, clauses.map((clause, number) => {
    const p = picture.clauses[number].probability;
    const bar = h("span", { title: `${clause.text}: ${p === null ? "?" : p.toFixed(3)}` }, h("i", { class: clause.needed && p !== null && p < 0.5 ? "low" : "" }));
    bar.firstChild.style.width = `${100 * Math.max(p ?? 0, 0.03)}%`;
    return bar;
  }));
}

// The table of clauses: every picture a bar, then the mean and the least.
export function clauseTable(job, pictures, language) {
  const number = (value) => h("td", { class: "count" }, value === null ? "?" : value.toFixed(3));
  const rows = job.clauses.map((clause, place) => h(
    "tr",
    {},
    h("th", { scope: "row" }, code(clause.text, language)),
    h("td", {}, h("span", { class: "columns", "aria-hidden": "true" }, pictures.map((picture) => {
      const p = picture.clauses[place].probability;
      const column = h("i", { class: clause.needed && p !== null && p < 0.5 ? "low" : "" });
      column.style.height = `${100 * Math.max(p ?? 0, 0.04)}%`;
      return column;
    }))),
    number(clause.mean),
    number(clause.least),
  ));
  const heads = ["clause", "each picture", "mean", "least"].map((text) => h("th", { scope: "col" }, text));
  const title = h("h3", {}, "How sure is each clause", job.joined ? h("span", { class: "faint" }, ` (${job.joined})`) : null);
  return [title, h("table", { class: "clauses" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows))];
}

// A query in colours.
export function code(text, language) {
  return h("code", { class: "query" }, language.tokens(text).map((token) => h("span", { class: `t-${token.kind}` }, token.text)));
}
