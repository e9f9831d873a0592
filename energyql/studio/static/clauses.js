// The probability of each part of the query, for all pictures together.

import { h } from "./dom.js";
import { code } from "./paper.js";

const SURE = 0.9; // least probability at which samplers count a query as true
const MOST_DOUBTS = 3; // most uncertain clauses that are listed under one picture

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

// A horizontal bar, as long as the probability.
export function meter(p) {
  const bar = h("span", { class: "meter", "aria-hidden": "true" }, h("i", { class: p !== null && p < 0.5 ? "low" : "" }));
  bar.firstChild.style.width = `${100 * (p ?? 0)}%`;
  return bar;
}

// Uncertain clauses of a picture, the least probable first: those that must hold, or else the whole query.
export function doubts(picture, clauses, language) {
  const parts = clauses.every(({ needed }) => needed) ? picture.clauses : [{ text: picture.query, probability: picture.probability }];
  const unsure = parts.filter(({ probability: p }) => p !== null && p < SURE).sort((a, b) => a.probability - b.probability);
  return unsure.slice(0, MOST_DOUBTS).map(({ text, probability: p }) => h("span", { class: "unsure", title: `${text}: ${p.toFixed(3)}` },
    code(text, language), h("strong", { class: p < 0.5 ? "low" : "" }, `${Math.round(100 * p)} %`, h("span", {}, " sure")), meter(p)));
}

export const shown = (picture) =>
  picture.probability !== null ? `P ${picture.probability.toFixed(3)}` : picture.energy !== null ? `E ${picture.energy.toFixed(2)}` : "E ∞";
