// Remedies for a query that the studio refuses, as buttons.

import { toUnits } from "./language.js";

// {words, weak}: corrections, each with the range of the text that it replaces; and attributes with weak heads, which
// the visitor may allow.
export function remedies({ error, message, hint, suggestions = [] }, text, language) {
  if (error === "WeakHeadError") {
    const said = `${message} ${hint}`;
    const weak = language.attributes.filter((attribute) => attribute.weak && said.includes(`'${attribute.name}'`));
    return { words: [], weak: weak.map(({ name }) => name) };
  }
  const ranges = toUnits(text, suggestions.map(({ span }) => span));
  return { words: suggestions.map((suggestion, place) => ({ text: suggestion.text, range: ranges[place] })), weak: [] };
}
