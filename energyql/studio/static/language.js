// The part of the query language that colours and completion need. The parser of the studio decides what is valid.

const TOKEN = /(?<comment>#[^\n\r]*)|(?<quoted>"(?:[^"\\\n\r]|\\.)*"?)|(?<number>(?<![\p{L}\p{N}_])(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)|(?<word>[\p{L}_][\p{L}\p{M}\p{N}_]*)|(?<sign><->|->|<=|>=|!=|<>|==|\+-|±|&&|\|\||[<>=&|^!~*(){}[\],])|(?<blank>\s+)|(?<other>.)/gsu;

export class Language {
  // `words` names the reader of texts in quotes, if there is one; `texts` are some of these.
  constructor(keywords, attributes, words = null, texts = []) {
    this.words = words;
    this.texts = words ? [...texts, '"'].map((text) => ({ insert: text === '"' ? text : `${text} `, label: text, note: `read by ${words}` })) : [];
    this.keywords = new Set(keywords);
    this.attributes = attributes;
    this.byName = new Map(attributes.map((attribute) => [attribute.name, attribute]));
    this.values = new Set(attributes.flatMap((attribute) => attribute.values.map(unquote)));
  }

  // Tokens as {kind, text, start, end}; offsets count UTF-16 units, as a text box does.
  tokens(text) {
    return [...text.matchAll(TOKEN)].map((match) => {
      const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
      const token = { kind, text: match[0], start: match.index, end: match.index + match[0].length };
      if (kind === "word" || kind === "quoted") token.kind = this.kindOf(token);
      return token;
    });
  }

  kindOf({ kind, text }) {
    if (kind === "word" && this.keywords.has(text.toUpperCase())) return "keyword";
    const name = unquote(text);
    if (this.byName.has(name)) return "attribute";
    return this.values.has(name) ? "value" : this.words && kind === "quoted" ? "attribute" : "unknown";
  }

  // Completions at a place of a text: {start, end, items}, each item {insert, label, note}.
  suggest(text, place, asked) {
    const all = this.tokens(text);
    const touched = all.find((token) => token.end === place && ["keyword", "attribute", "value", "unknown"].includes(token.kind));
    const start = touched ? touched.start : place;
    if (all.some((token) => token.kind === "comment" && token.start < place && place <= token.end)) return null;
    const prefix = unquote(text.slice(start, place)).toLowerCase();
    const before = all.filter((token) => token.end <= start && !["blank", "comment"].includes(token.kind));
    const attribute = this.valuesWanted(before);
    let items;
    if (attribute) items = attribute.values.map((value) => ({ insert: value, label: value, note: attribute.name }));
    else if (!prefix && !asked) return null;
    else if (afterOperand(before)) items = OPERATORS.map((insert) => ({ insert: `${insert} `, label: insert, note: "" }));
    else items = [...this.attributes.map(offer), ...this.texts, ...OPERANDS];
    const found = items
      .map((item) => ({ ...item, rank: rank(unquote(item.label).toLowerCase(), prefix) }))
      .filter((item) => item.rank < 3)
      .sort((a, b) => a.rank - b.rank);
    const begin = found.filter((item) => item.rank === 0);
    const complete = begin.length === 1 && unquote(begin[0].label).toLowerCase() === prefix;
    return found.length && !complete ? { start, end: place, items: found.slice(0, 10) } : null;
  }

  // The attribute whose values can follow, if the text before ends in `hair =`, `hair IN {black,` or similar.
  valuesWanted(before) {
    let last = before.length - 1;
    const sign = before[last]?.text;
    if (["{", ","].includes(sign)) {
      while (last >= 0 && before[last].text !== "{") {
        if (before[last].text !== "," && !["attribute", "value", "unknown"].includes(before[last].kind)) return null;
        last -= 1;
      }
      last -= 1;
      if (before[last]?.text.toUpperCase() !== "IN") return null;
      if (before[last - 1]?.text.toUpperCase() === "NOT") last -= 1;
    } else if (!["=", "==", "!=", "<>"].includes(sign)) {
      return null;
    }
    const attribute = this.byName.get(unquote(before[last - 1]?.text || ""));
    return attribute?.kind === "categorical" ? attribute : null;
  }
}

const OPERATORS = ["AND", "AND NOT", "OR", "XOR", "IMPLIES", "IFF"];
const OPERANDS = [
  ["NOT ", "NOT", "the opposite"],
  ["AT LEAST 2 OF (", "AT LEAST 2 OF (…)", "two or more"],
  ["AT MOST 1 OF (", "AT MOST 1 OF (…)", "one or none"],
  ["EXACTLY 1 OF (", "EXACTLY 1 OF (…)", "just one"],
  ["ALL OF (", "ALL OF (…)", "every one"],
  ["ANY OF (", "ANY OF (…)", "one or more"],
  ["NONE OF (", "NONE OF (…)", "not one"],
].map(([insert, label, note]) => ({ insert, label, note }));

function offer({ written, kind, values, low, high, description }) {
  const insert = { "yes/no": `${written} `, categorical: `${written} = `, continuous: `${written} > ` }[kind];
  const range = kind === "categorical" ? values.join(", ") : kind === "continuous" ? `${low} to ${high}` : "";
  return { insert, label: written, note: range || description };
}

function afterOperand(before) {
  const last = before[before.length - 1];
  if (!last) return false;
  const names = ["attribute", "value", "unknown", "number"];
  return names.includes(last.kind) || [")", "}", "]"].includes(last.text) || /^(true|false)$/i.test(last.text);
}

function rank(label, prefix) {
  if (label.startsWith(prefix)) return 0;
  if (prefix.length > 1 && label.split(/[\s_]/).some((part) => part.startsWith(prefix))) return 1;
  return prefix.length > 1 && label.includes(prefix) ? 2 : 3;
}

export function unquote(text) {
  return text.startsWith('"') ? text.slice(1).replace(/"$/, "").replace(/\\(.)/g, "$1") : text;
}

// Convert offsets in code points, as in the API, to offsets in UTF-16 units.
export function toUnits(text, spans) {
  const starts = [0];
  for (const character of text) starts.push(starts[starts.length - 1] + character.length);
  const at = (offset) => starts[Math.min(offset, starts.length - 1)];
  return spans.map(([start, end]) => [at(start), at(end)]);
}
