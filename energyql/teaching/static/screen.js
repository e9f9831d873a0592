// The pictures that a person looks at together: marks of yes or of classes, or the order of a number.

import { h } from "/static/dom.js";

const ROW = 8; // pictures in a row that is ordered

export class Screen {
  // `accept()` is called when Enter is pressed on a picture.
  constructor(root, brushes) {
    Object.assign(this, { root, brushes, cells: [], marks: new Map(), spec: null, brush: "", painting: null, touched: false });
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointerover", (event) => this.paint(event));
    root.addEventListener("click", (event) => { if (event.detail === 0) this.toggle(this.at(event)); }); // by keyboard
    addEventListener("pointerup", () => { this.painting = null; });
  }

  static size(spec) { return spec.kind === "continuous" ? ROW : 40; }

  get length() { return this.cells.length; }

  get numeric() { return this.spec.kind === "continuous"; }

  get binary() { return this.spec.kind === "yes/no"; }

  get task() {
    return this.numeric ? `Order these from low to high: ${this.spec.name}` : this.binary ? `Click every picture with: ${this.spec.name}` : `Which ${this.spec.name}? Choose one, and click its pictures`;
  }

  get how() {
    const guessed = this.cells.some(({ guess }) => guess !== null);
    if (this.numeric) return "Drag pictures, or move them with Shift and an arrow key.";
    if (!guessed) return this.binary ? "Drag over several. One key says no of all the others." : "Or drag pictures onto an answer. Those without one are left open.";
    return "Marks are guesses: correct those that are wrong, and accept the screen.";
  }

  get end() { return this.numeric ? "This is the order" : this.binary ? "The rest: no" : "Accept"; }

  // Labels of all pictures of the screen.
  get labels() {
    if (this.numeric) {
      const { low, high } = this.spec;
      const known = this.cells.every(({ sure }) => sure !== null);
      const even = this.cells.map((_, place) => low + ((place + 0.5) / this.cells.length) * (high - low));
      const values = known ? this.cells.map(({ sure }) => Math.min(high, Math.max(low, sure))).sort((a, b) => a - b) : even;
      return Object.fromEntries(this.cells.map(({ number }, place) => [number, values[place]]));
    }
    if (this.binary) return Object.fromEntries(this.cells.map(({ number }) => [number, this.marks.get(number) ?? "no"]));
    return Object.fromEntries(this.marks);
  }

  show(spec, cells) {
    this.spec = spec;
    this.touched = false;
    this.cells = this.numeric ? [...cells].sort((a, b) => (a.sure ?? 0) - (b.sure ?? 0)) : cells;
    this.marks = new Map();
    for (const { number, label, guess } of cells) {
      const told = label ?? guess;
      if (told && !(this.binary && told === "no")) this.marks.set(number, told);
    }
    if (this.binary) this.brush = "yes";
    else if (!spec.values.includes(this.brush)) this.brush = spec.values[0] ?? "";
    this.brushes.hidden = this.binary || this.numeric;
    this.drawBrushes();
    this.root.replaceChildren(...this.cells.map((cell, place) => this.cell(cell, place)));
    for (const { number } of this.cells) this.mark(number);
  }

  drawBrushes() {
    if (this.brushes.hidden) return;
    this.brushes.replaceChildren(...this.spec.values.map((value, place) => h("button", {
      type: "button", class: "chip", "aria-pressed": String(value === this.brush),
      onclick: () => this.take(value),
      ondragover: (event) => { event.preventDefault(); event.currentTarget.classList.add("over"); },
      ondragleave: (event) => event.currentTarget.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        event.currentTarget.classList.remove("over");
        this.give(Number(event.dataTransfer.getData("text/plain")), value);
      },
    }, value, place < 9 ? h("kbd", {}, String(place + 1)) : null)));
  }

  take(value) {
    this.brush = value;
    this.drawBrushes();
  }

  cell({ number, label, guess, again }, place) {
    const node = h("button", {
      type: "button", class: "cell", dataset: { number }, tabindex: place ? "-1" : "0", draggable: this.binary ? false : "true",
      ondragstart: (event) => event.dataTransfer.setData("text/plain", number),
      ondragover: (event) => { if (this.numeric) event.preventDefault(); },
      ondrop: (event) => { if (this.numeric) { event.preventDefault(); this.put(Number(event.dataTransfer.getData("text/plain")), number); } },
    }, h("img", { src: `api/pictures/${number}.png`, alt: "", draggable: "false" }));
    if (again) node.append(h("span", { class: "tag again" }, `you said ${label}, read as ${guess}`));
    return node;
  }

  node(number) { return this.root.querySelector(`[data-number="${number}"]`); }

  // Show the mark of a picture.
  mark(number) {
    const node = this.node(number);
    const value = this.marks.get(number);
    node.setAttribute("aria-label", `picture ${number}${value ? `: ${value}` : ""}`);
    if (this.numeric) { node.setAttribute("aria-label", `picture ${number}, place ${1 + this.cells.findIndex((cell) => cell.number === number)}`); return; }
    node.setAttribute("aria-pressed", String(value !== undefined));
    if (this.binary) return;
    node.querySelector(".tag:not(.again)")?.remove();
    if (value) node.append(h("span", { class: "tag" }, value));
  }

  give(number, value) {
    if (!this.node(number)) return;
    this.touched = true;
    if (value === null) this.marks.delete(number);
    else this.marks.set(number, value);
    this.mark(number);
  }

  toggle(number) {
    if (number === null || this.numeric) return;
    this.give(number, this.marks.get(number) === this.brush ? null : this.brush);
  }

  at(event) {
    const node = event.target.closest?.(".cell");
    return node ? Number(node.dataset.number) : null;
  }

  press(event) {
    const number = this.at(event);
    if (number === null || this.numeric || event.button !== 0) return;
    this.toggle(number);
    if (this.binary && event.pointerType !== "touch") this.painting = this.marks.get(number) ?? null;
    this.painted = this.binary && event.pointerType !== "touch";
    addEventListener("pointerup", () => { this.painted = false; }, { once: true });
  }

  // A pointer that is held down gives its mark to all pictures that it passes.
  paint(event) {
    const number = this.at(event);
    if (this.painted && number !== null && event.buttons === 1) this.give(number, this.painting);
  }

  // Move a picture to the place of another.
  put(number, other) {
    const from = this.cells.findIndex((cell) => cell.number === number);
    const to = this.cells.findIndex((cell) => cell.number === other);
    if (from < 0 || to < 0 || from === to) return;
    const [cell] = this.cells.splice(from, 1);
    this.cells.splice(to, 0, cell);
    this.touched = true;
    const node = this.node(number);
    if (from < to) this.node(other).after(node);
    else this.node(other).before(node);
    for (const each of this.cells) this.mark(each.number);
    node.focus();
  }

  // Keys on a picture; whether the key meant something.
  key(event) {
    const digit = Number(event.key);
    if (!this.brushes.hidden && digit >= 1 && digit <= this.spec?.values.length) { this.take(this.spec.values[digit - 1]); return true; }
    const nodes = [...this.root.children];
    const place = nodes.indexOf(event.target);
    if (place < 0) return false;
    const wide = nodes.filter(({ offsetTop }) => offsetTop === nodes[0].offsetTop).length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide }[event.key];
    const next = nodes[place + step];
    if (step === undefined || !next) return false;
    if (event.shiftKey && this.numeric) { this.put(Number(event.target.dataset.number), Number(next.dataset.number)); return true; }
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    return true;
  }
}
