// A place: everything that the page shows, in the part of an address after #, which browsers do not send.
// {query, settings, fingerprint, edit, vary, photo, board}. `edit` is {index, steps, options} of the picture that is open, `vary`
// {indices, amount, seed, wanted, of} of variations, where `of` is another round of them that they began with, `photo` the job of a photograph, `board` the rows that stand in place of the wall; each can be null.

const NUMBERS = ["strength", "truncation", "seed", "n", "purity", "attempts"];
const WORDS = ["model", "semantics", "sampler", "verify"];
const PLAIN = { keep: null, edit_strength: null, layers: null };

export const plainOptions = () => ({ ...PLAIN });

// Variations of variations, from the first round to the last.
export const rounds = (vary) => (vary ? [...rounds(vary.of), vary] : []);

// The fingerprint of the weights shows whether the pictures of a link will be the same.
export function encode({ query, settings, fingerprint = "", edit = null, vary = null, photo = null, board = null }) {
  const fields = new URLSearchParams({ q: query });
  for (const [name, value] of Object.entries(settings)) {
    if (name === "allow_weak") for (const weak of value) fields.append("weak", weak);
    else if (value !== null) fields.set(name, value);
  }
  for (const each of rounds(vary)) {
    fields.append("vary", each.indices.join(" "));
    fields.append("amount", each.amount);
    fields.append("variation", each.seed);
    fields.append("wanted", each.wanted ?? "");
  }
  if (photo) fields.set("photo", photo);
  if (board) fields.set("board", JSON.stringify(board));
  if (fingerprint) fields.set("weights", fingerprint);
  if (edit) {
    fields.set("edit", edit.index);
    for (const step of edit.steps) fields.append("step", step);
    const { keep, edit_strength: strength, layers } = { ...PLAIN, ...edit.options };
    if (keep) for (const name of keep.length ? keep : [""]) fields.append("keep", name);
    if (strength) fields.set("edit_strength", strength);
    if (layers) fields.set("layers", layers.join(" "));
  }
  return `#${fields}`;
}

// The place in an address, or null without one.
export function decode(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (!fields.has("q")) return null;
  const settings = {};
  for (const name of WORDS) if (fields.has(name)) settings[name] = fields.get(name);
  const number = (name) => {
    const value = Number(fields.get(name) || NaN);
    return Number.isFinite(value) ? value : undefined;
  };
  for (const name of NUMBERS) if (number(name) !== undefined) settings[name] = number(name);
  settings.allow_weak = fields.getAll("weak");
  const index = number("edit") ?? -1;
  const options = plainOptions();
  if (fields.has("keep")) options.keep = fields.getAll("keep").filter(Boolean);
  if (number("edit_strength") > 0) options.edit_strength = number("edit_strength");
  if (fields.has("layers")) options.layers = readLayers(fields.get("layers"));
  const edit = Number.isSafeInteger(index) && index >= 0 ? { index, steps: fields.getAll("step"), options } : null;
  const vary = fields.getAll("vary").reduce((of, text, round) => readRound(fields, text, round, of), null);
  return { query: fields.get("q"), settings, fingerprint: fields.get("weights") || "", edit, vary, photo: fields.get("photo"), board: readBoard(fields.get("board")) };
}

// One round of variations; if it names no pictures, the rounds before it.
function readRound(fields, text, round, of) {
  const indices = text.split(" ").filter((word) => /^\d+$/.test(word)).map(Number);
  const [amount, seed, wanted] = ["amount", "variation", "wanted"].map((name) => fields.getAll(name)[round] ?? "");
  const within = (value) => (value !== "" && Number(value) >= 0 && Number(value) <= 1 ? Number(value) : 0.3);
  return indices.length ? { indices, amount: within(amount), seed: Number.isSafeInteger(Number(seed)) ? Number(seed) : 0, wanted: wanted || null, of } : of;
}

// Rows of pictures; null if the address has no valid ones.
function readBoard(text) {
  try {
    const board = JSON.parse(text);
    const known = board?.kind === "compare" ? Array.isArray(board.rows) : ["table", "traversal", "gallery"].includes(board?.kind) && board.body;
    return known ? board : null;
  } catch { return null; }
}

// Numbers of layers in a text such as `0 1 5-8`; null without one.
export function readLayers(text) {
  const found = new Set();
  for (const [, from, to] of text.matchAll(/(\d+)(?:\s*-\s*(\d+))?/g)) {
    for (let layer = Number(from); layer <= Math.min(Number(to ?? from), Number(from) + 99); layer += 1) found.add(layer);
  }
  return found.size ? [...found].sort((a, b) => a - b) : null;
}

// A key that is the same for two places with the same pictures on the wall.
export const keyOf = ({ query, settings, vary, photo }) => encode({ query, settings, vary, photo });

// The request that draws a place: its path and its body. `job` has the pictures that variations begin with, if they are not
// those of the query.
export function requestOf({ query, settings, vary }, job = null) {
  if (!vary) return ["/api/jobs", { query, ...settings }];
  const { indices, amount, seed, wanted } = vary;
  const how = { amount, variation_seed: seed, wanted: wanted ?? query };
  if (job === null) return ["/api/variations", { query, ...settings, indices, ...how }];
  const { model, semantics, allow_weak: weak, n } = settings;
  return ["/api/variations", { model, semantics, allow_weak: weak, n, job, positions: indices, ...how }];
}

export const linkTo = (place) => new URL(encode(place), location.href).href;
