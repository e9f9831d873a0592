// A link that restores everything: the whole request stands in it, behind the #, which browsers send to nobody.

const NUMBERS = ["strength", "truncation", "seed", "n"];

// `edit` is {index, steps} or null. The fingerprint of the weights tells the reader of the link whether pictures agree.
export function encode(query, settings, fingerprint, edit) {
  const fields = new URLSearchParams({ q: query });
  for (const [name, value] of Object.entries(settings)) if (value !== null) fields.set(name, value);
  fields.set("weights", fingerprint);
  if (edit) {
    fields.set("edit", edit.index);
    for (const step of edit.steps) fields.append("step", step);
  }
  return `#${fields}`;
}

// {query, settings, fingerprint, edit}, or null where the address holds no request.
export function decode(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (!fields.has("q")) return null;
  const settings = {};
  for (const name of ["model", "semantics", "sampler"]) if (fields.has(name)) settings[name] = fields.get(name);
  for (const name of NUMBERS) {
    const value = Number(fields.get(name) || NaN);
    if (Number.isFinite(value)) settings[name] = value;
  }
  const index = Number(fields.get("edit") ?? NaN);
  const edit = Number.isSafeInteger(index) && index >= 0 ? { index, steps: fields.getAll("step") } : null;
  return { query: fields.get("q"), settings, fingerprint: fields.get("weights") || "", edit };
}
