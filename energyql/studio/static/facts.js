// The facts of one picture, in words and bars.

import { meter, shown } from "./clauses.js";
import { badge, h, mark } from "./dom.js";
import { code } from "./paper.js";
import { DOUBT } from "./wall.js";

// The verdict on a picture. After an edit there are two: on the edit, and on the query that the picture was drawn for.
export function verdicts(picture, run, edited) {
  const solver = picture.status === "OK" ? null : h("p", { class: "faint" }, `The solver ended early (${picture.status.toLowerCase().replaceAll("_", " ")}).`);
  const doubt = picture.doubtful ? h("p", { class: "doubt" }, h("strong", {}, "Doubtful. "), DOUBT) : null;
  if (!edited) {
    const [says, rest] = picture.verdict.match(/^([^,:]*)(.*)$/s).slice(1);
    return [line("Query", picture.query, run.language, picture.satisfied, says, `${rest}. ${shown(picture).replace(" ", "\u00a0")}.`), solver, doubt];
  }
  const judge = run.model.judge;
  const said = (holds, yes, no) => (holds === null ? "not judged" : holds ? yes : no);
  const by = judge ? `, says the ${judge}.` : ".";
  return [
    line("Edit", picture.query, run.language, picture.satisfied, said(picture.satisfied, "The edit holds", "The edit does not hold"), by),
    line("Query it was drawn for", run.query, run.language, picture.keeps_query, said(picture.keeps_query, "The query still holds", "The query no longer holds"), by),
    solver,
    doubt,
    changes(picture),
  ];
}

function line(name, text, language, holds, says, rest) {
  return h("div", { class: "ruling" }, h("h3", {}, name), code(text, language),
    h("p", { class: `says ${mark(holds)}` }, badge(holds), h("span", {}, h("strong", {}, says[0].toUpperCase() + says.slice(1)), rest)));
}

function changes({ changes: found, superseded }) {
  const gone = superseded.length ? h("p", {}, `In place of: ${superseded.join(", ")}`) : null;
  if (!found.length) return h("div", { class: "changes" }, gone, h("p", {}, "Nothing else changed."));
  const items = found.map(({ attribute, before, after, implied }) => h("li", {}, h("code", {}, attribute), ` ${before} → ${after}`, implied ? h("span", { class: "faint" }, ", which the query needs") : null));
  return h("div", { class: "changes" }, gone, h("p", {}, "Changed as well:"), h("ul", {}, items));
}

// The probability of each clause by the heads, and the values of the judge.
export function evidence(picture, run) {
  const rows = picture.clauses.map(({ text, probability }) => h("tr", {}, h("th", { scope: "row" }, code(text, run.language)), h("td", {}, meter(probability)),
    h("td", { class: "count" }, probability === null ? "?" : probability.toFixed(3))));
  return [
    h("h3", {}, "How sure is each clause"),
    h("table", { class: "clauses" }, h("tbody", {}, rows)),
    ...(run.model.judge ? [h("h3", {}, `What the ${run.model.judge} sees`), h("p", { class: "read" }, seen(picture.judged))] : []),
  ];
}

function seen(judged) {
  const yes = [];
  const no = [];
  for (const [name, value] of Object.entries(judged)) {
    if (typeof value === "boolean") (value ? yes : no).push(name);
    else if (value !== null) yes.push(`${name} = ${typeof value === "number" ? value.toFixed(2) : value}`);
  }
  return [yes.join(", "), no.length ? `no ${no.join(", ")}` : ""].filter(Boolean).join("; ");
}

// Buttons for edits: the opposite of each yes/no attribute, and the other classes of each categorical one.
export function offers(picture, language) {
  return language.attributes.filter(({ weak }) => !weak).flatMap(({ name, written, kind, values }) => {
    const value = picture.judged[name];
    if (kind === "yes/no") return [value === true ? `NOT ${written}` : written];
    return kind === "categorical" ? values.filter((other) => other !== value).map((other) => `${written} = ${other}`) : [];
  });
}
