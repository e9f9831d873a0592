// The panel that asks for rows of pictures: see `board.js`.

import { $, button, h } from "./dom.js";
import { asking, QueryBox } from "./querybox.js";

const MOST_LITERALS = 4;
const COLUMNS = 8; // most pictures of a row
const SECTIONS = 6; // most queries of a gallery

export class Compare {
  // `page`: info, written() the query and the settings that stand there, language(), show(board).
  constructor(store, page) {
    Object.assign(this, { store, page, samplers: new Set(page.info.samplers.slice(0, 2)) });
    const other = h("div");
    const literals = h("input", { type: "text", id: "literals", placeholder: "smile, glasses", autocomplete: "off", "aria-label": "Conditions of the truth table" });
    const steps = h("input", { type: "number", id: "path-steps", min: 2, max: 16, value: 8, "aria-label": "Pictures of a path" });
    $("compare").replaceChildren(
      h("section", {}, h("h3", {}, "With another query"), other, h("div", { class: "run" },
        button("Side by side", () => this.queries()),
        button("Draw the path", () => this.traverse(Number(steps.value))), h("label", { class: "faint" }, steps, " steps"))),
      h("section", {}, h("h3", {}, "The same query"), h("div", { class: "run" }, button("By semantics", () => this.vary("semantics", page.info.semantics))),
        h("div", { class: "chips", role: "group", "aria-label": "Samplers" }, page.info.samplers.map((name) => this.sampler(name))),
        h("div", { class: "run" }, button("By sampler", () => this.vary("sampler", [...this.samplers])))),
      h("section", {}, h("h3", {}, "Truth table"), h("p", { class: "faint" }, "Every combination of one to four conditions, with commas between them."), literals,
        h("div", { class: "run" }, button("Draw the table", () => this.table(literals.value)))),
      h("section", {}, h("h3", {}, "Gallery"), h("p", { class: "faint" }, "The last queries of the history on one page, which can be saved."),
        h("div", { class: "run" }, button("Draw the gallery", () => this.gallery()))),
    );
    this.box = new QueryBox(other, { label: "Another query", placeholder: "hat AND glasses", language: page.language, ask: () => asking(page.written().settings), submit: () => this.queries() });
    // The conditions of the query are those that a table of it is about.
    document.querySelector("[data-panel=compare]").addEventListener("click", () => {
      if (!literals.value) literals.value = this.named().slice(0, MOST_LITERALS).join(", ");
    });
  }

  sampler(name) {
    const chip = h("button", { type: "button", class: "chip", "aria-pressed": String(this.samplers.has(name)), onclick: () => {
      if (!this.samplers.delete(name)) this.samplers.add(name);
      chip.setAttribute("aria-pressed", String(this.samplers.has(name)));
    } }, name);
    return chip;
  }

  // The yes/no attributes that the query names.
  named() {
    const language = this.page.language();
    const tokens = language.tokens(this.page.written().query).filter(({ kind }) => kind === "attribute").map(({ text }) => text);
    return [...new Set(tokens)].filter((text) => language.attributes.some(({ written, kind }) => written === text && kind === "yes/no"));
  }

  get asked() {
    const { query, settings } = this.page.written();
    return { query, settings: { ...settings, n: Math.min(settings.n, COLUMNS) } };
  }

  queries() {
    const { query, settings } = this.asked;
    const second = this.box.text.trim();
    if (!second || this.box.broken) { this.box.focus(); return; }
    this.page.show({ kind: "compare", rows: [query, second].map((each, place) => ({ label: "AB"[place], query: each, settings })) });
  }

  vary(name, values) {
    const { query, settings } = this.asked;
    if (values.length) this.page.show({ kind: "compare", rows: values.map((value) => ({ label: value, query, settings: { ...settings, [name]: value } })) });
  }

  traverse(steps) {
    const { query, settings: { n: _n, ...settings } } = this.asked;
    const end = this.box.text.trim();
    if (!end || this.box.broken) { this.box.focus(); return; }
    this.page.show({ kind: "traversal", body: { ...settings, start: query, end, steps, n: 2 } });
  }

  table(text) {
    const { settings: { n, ...settings } } = this.asked;
    const literals = split(text, this.page.language());
    if (!literals.length) { $("literals").focus(); return; }
    this.page.show({ kind: "table", body: { ...settings, literals, n: Math.min(n, 4) } });
  }

  gallery() {
    const { query, settings: { n, ...settings } } = this.asked;
    const past = this.store.state.past.filter((entry) => entry.settings.model === settings.model && !entry.photo).map((entry) => entry.query);
    const queries = [...new Set([query, ...past])].slice(0, SECTIONS);
    this.page.show({ kind: "gallery", body: { ...settings, queries, n } });
  }
}

// Split a text at the commas outside brackets.
function split(text, language) {
  const parts = [];
  let depth = 0;
  let start = 0;
  for (const token of language.tokens(text)) {
    if ("([{".includes(token.text)) depth += 1;
    if (")]}".includes(token.text)) depth -= 1;
    if (token.text === "," && depth === 0) { parts.push(text.slice(start, token.start)); start = token.end; }
  }
  return [...parts, text.slice(start)].map((part) => part.trim()).filter(Boolean);
}
