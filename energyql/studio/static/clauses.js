// How sure is each part of the query, for all pictures together.

import { h } from "./dom.js";
import { code } from "./paper.js";

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

// One thin bar a clause, under its picture.
export function bars(picture, clauses) {
  if (clauses.length < 2 || clauses.length > 8) return null;
  return h("span", { class: "bars", "aria-hidden": "true" }, clauses.map((clause, number) => {
    const p = picture.clauses[number].probability;
    const bar = h("span", { title: `${clause.text}: ${p === null ? "?" : p.toFixed(3)}` }, h("i", { class: clause.needed && p !== null && p < 0.5 ? "low" : "" }));
    bar.firstChild.style.width = `${100 * Math.max(p ?? 0, 0.03)}%`;
    return bar;
  }));
}

export const shown = (picture) =>
  picture.probability !== null ? `P ${picture.probability.toFixed(3)}` : picture.energy !== null ? `E ${picture.energy.toFixed(2)}` : "E ∞";
