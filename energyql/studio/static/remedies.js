// What can be done about a query that the studio refuses, as things to click.

import { unquote } from "./language.js";

// {words, weak}: words of the studio's "did you mean", each with the range of the text that it replaces, and attributes
// whose heads are too weak unless they are allowed by name.
export function remedies({ error, message, hint }, text, spans, language) {
  const places = spans.filter(([start, end]) => end > start);
  if (error === "WeakHeadError") {
    const said = `${message} ${hint}`;
    const weak = language.attributes.filter((attribute) => attribute.weak && said.includes(`'${attribute.name}'`));
    return { words: [], weak: weak.map(({ name }) => name) };
  }
  const names = [...(hint ?? "").matchAll(/did you mean (.+?)(?: for '[^']*')?\?/g)].flatMap(([, list]) => list.split(", "));
  if (!places.length) return { words: [], weak: [] };
  const words = names.map((name) => {
    const distances = places.map(([start, end]) => distance(unquote(text.slice(start, end)).toLowerCase(), name.toLowerCase()));
    return { text: language.byName.get(name)?.written ?? name, range: places[distances.indexOf(Math.min(...distances))] };
  });
  return { words, weak: [] };
}

// Letters to add, leave out or change until one word is the other.
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next.push(Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length];
}
