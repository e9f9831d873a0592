// A query as a list of conditions that are joined by AND; clicks change these conditions.

import { unquote } from "./language.js";

const LOOSER = new Set(["OR", "XOR", "IMPLIES", "IFF", "||", "|", "^", "->", "<->"]);
const AND = new Set(["AND", "&&", "&"]);

// The conditions as texts; a single one, the whole query, if it is joined by anything but AND.
export function conditions(text, language) {
  const tokens = language.tokens(text);
  const pieces = [];
  let depth = 0;
  let start = 0;
  for (const token of tokens) {
    if ("([{".includes(token.text)) depth += 1;
    if (")]}".includes(token.text)) depth -= 1;
    if (token.kind === "comment") return [text.trim()];
    if (depth > 0) continue;
    const word = token.text.toUpperCase();
    if (LOOSER.has(word)) return [text.trim()];
    if (AND.has(word)) {
      pieces.push(text.slice(start, token.start).trim());
      start = token.end;
    }
  }
  return [...pieces, text.slice(start).trim()].filter(Boolean);
}

// A condition on one attribute as {name, value}; null for any other condition. The value is true
// or false, a list of classes, or a range [low, high], where null means no bound.
export function reading(text, language) {
  const words = language.tokens(text).filter(({ kind }) => kind !== "blank").map((token) => token.text);
  const attribute = (word) => language.byName.get(unquote(word ?? ""));
  const number = (word) => (word !== undefined && word.trim() !== "" && Number.isFinite(Number(word)) ? Number(word) : null);
  const [first, second, third] = words;
  const upper = words.map((word) => word.toUpperCase());
  if (words.length === 1 && attribute(first)?.kind === "yes/no") return { name: attribute(first).name, value: true };
  if (words.length === 2 && upper[0] === "NOT" && attribute(second)?.kind === "yes/no") return { name: attribute(second).name, value: false };
  const found = attribute(first);
  if (!found) return null;
  if (found.kind === "categorical" && words.length === 3 && ["=", "=="].includes(second)) return { name: found.name, value: [third] };
  if (found.kind === "categorical" && upper[1] === "IN" && third === "{") {
    return { name: found.name, value: words.slice(3, -1).filter((word) => word !== ",") };
  }
  if (found.kind !== "continuous") return null;
  if (words.length === 3 && number(third) !== null && [">", ">="].includes(second)) return { name: found.name, value: [number(third), null] };
  if (words.length === 3 && number(third) !== null && ["<", "<="].includes(second)) return { name: found.name, value: [null, number(third)] };
  if (upper[1] === "IN" && third === "[" && words.length === 7) return { name: found.name, value: [number(words[3]), number(words[5])] };
  return null;
}

// The text of a condition on an attribute; "" if every value satisfies it.
export function condition({ written, kind, values, low, high }, value) {
  if (value === null) return "";
  if (kind === "yes/no") return value ? written : `NOT ${written}`;
  if (kind === "categorical") {
    if (!value.length || value.length === values.length) return "";
    return value.length === 1 ? `${written} = ${value[0]}` : `${written} IN {${value.join(", ")}}`;
  }
  const [from, to] = [value[0] ?? low, value[1] ?? high];
  if (from <= low && to >= high) return "";
  if (to >= high) return `${written} > ${short(from)}`;
  return from <= low ? `${written} < ${short(to)}` : `${written} IN [${short(from)}, ${short(to)}]`;
}

// The text with the condition of one attribute replaced, added or, if it is "", removed.
export function amend(text, language, name, piece) {
  const parts = conditions(text, language);
  const place = parts.findIndex((part) => reading(part, language)?.name === name);
  if (place >= 0) parts.splice(place, 1, ...(piece ? [piece] : []));
  else if (piece) {
    if (parts.length === 1 && needsBrackets(parts[0], language)) parts[0] = `(${parts[0]})`;
    parts.push(piece);
  }
  return parts.join(" AND ");
}

// The value of the condition on an attribute in a text, or null.
export function wanted(text, language, name) {
  return conditions(text, language).map((part) => reading(part, language)).find((found) => found?.name === name)?.value ?? null;
}

function needsBrackets(text, language) {
  let depth = 0;
  return language.tokens(text).some((token) => {
    if ("([{".includes(token.text)) depth += 1;
    if (")]}".includes(token.text)) depth -= 1;
    return depth === 0 && LOOSER.has(token.text.toUpperCase());
  });
}

const short = (number) => String(Number(number.toPrecision(4)));
