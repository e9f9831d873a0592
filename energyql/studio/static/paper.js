// A query in colours: as a line, and as the paper under a text box, with each letter exactly under that of the box.

import { h } from "./dom.js";

export function code(text, language) {
  return h("code", { class: "query" }, language.tokens(text).map((token) => h("span", { class: `t-${token.kind}` }, token.text)));
}

// Paint the text of a box, with carets under `spans`. Returns the mark at `place`, where the text cursor is.
export function paint(paper, tokens, text, place, spans) {
  const pieces = [];
  let cursor = null;
  const bad = (at) => spans.some(([start, end]) => start <= at && at < end);
  const points = new Set(spans.filter(([start, end]) => start === end).map(([start]) => start));
  const put = (at) => {
    if (points.has(at)) pieces.push(h("mark", { class: "caret" }));
    if (at === place) pieces.push((cursor = h("span", { class: "cursor" })));
  };
  for (const { kind, text: part, start } of tokens) {
    let run = "";
    const flush = () => {
      if (run) pieces.push(h("span", { class: `t-${kind}` }, run));
      run = "";
    };
    let at = start;
    for (const character of part) {
      if (points.has(at) || at === place) { flush(); put(at); }
      if (bad(at)) {
        flush();
        const wide = character === "\n" ? "caret" : "caret under";
        pieces.push(h("mark", { class: wide }, h("span", { class: `t-${kind}` }, character)));
      } else {
        run += character;
      }
      at += character.length;
    }
    flush();
  }
  put(text.length);
  paper.replaceChildren(...pieces, "\u200b"); // so that an empty last line has a height
  return cursor;
}
