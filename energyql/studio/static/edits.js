// The edits of one picture. The studio keeps no state between steps: each request has all steps, its response all pictures.

import { Runner } from "./api.js";
import { plainOptions } from "./share.js";

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export class Edit {
  constructor(index, steps = [], options = plainOptions()) {
    Object.assign(this, { index, steps, options });
    this.known = { steps: [], options, pictures: [], job: "" }; // the longest row of pictures that has arrived
    this.coming = null; // the steps that were requested and have not arrived
    this.draft = "";
    this.failure = null;
    this.fraction = 0;
    this.runner = new Runner();
  }

  get busy() { return this.coming !== null; }

  // The start and the picture after each step; fewer until all have arrived.
  get pictures() { return this.has(this.steps, this.options) ? this.known.pictures.slice(0, this.steps.length + 1) : []; }

  has(steps, options) {
    return this.known.pictures.length > steps.length && same(options, this.known.options) && same(steps, this.known.steps.slice(0, steps.length));
  }

  // Go to these steps; `changed()` is called after each change. False if their pictures did not arrive.
  async go(run, steps, options, changed) {
    this.failure = null;
    if (!steps.length || this.has(steps, options)) {
      this.runner.forget();
      Object.assign(this, { steps, options, coming: null });
      changed();
      return true;
    }
    return bring(run, [this], steps, options, this.runner, changed);
  }
}

// Go to other steps for several pictures with the same steps, by one request.
export async function goTogether(run, edits, steps, options, changed) {
  const runner = new Runner();
  const before = edits.map((edit) => edit.runner);
  for (const edit of edits) edit.runner = runner; // so that cancelling one cancels all
  const done = await bring(run, edits, steps, options, runner, changed);
  edits.forEach((edit, row) => { edit.runner = before[row]; });
  return done;
}

// Request the pictures after these steps, a row for each edit. False if they did not arrive.
async function bring(run, edits, steps, options, runner, changed) {
  const request = { ...sourceOf(run, edits.map(({ index }) => index)), steps, ...chosen(options) };
  const rows = edits.map(() => []);
  const total = edits.length * (steps.length + 1);
  let last = null;
  let count = 0;
  const put = (fields) => {
    for (const edit of edits) Object.assign(edit, fields);
    changed();
  };
  put({ failure: null, coming: steps, fraction: 0 });
  try {
    const current = await runner.run("/api/edits", request, (job, fresh) => {
      for (const picture of fresh) rows[picture.row].push(picture);
      count += fresh.length;
      last = job;
      put({ fraction: (count + (job.stage === "editing" ? job.fraction * edits.length : 0)) / total });
    });
    if (!current) return false;
  } catch (problem) {
    put({ coming: null, failure: problem });
    return false;
  }
  if (last.state !== "done") {
    put({ coming: null, failure: last.problem });
    return false;
  }
  edits.forEach((edit, row) => { edit.known = { steps, options, pictures: rows[row], job: last.id }; });
  put({ coming: null, steps, options });
  return true;
}

// Options of an edit, without those that are not set.
export const chosen = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null));

// The fields of a request that name the pictures to edit: their numbers in a drawing, which the studio can draw again, or
// their positions in a job.
function sourceOf(run, indices) {
  const { n: _n, ...settings } = run.settings;
  if (!run.vary && !run.photo) return { ...settings, query: run.query, indices };
  const { model, semantics, allow_weak: weak } = settings;
  const positions = indices.map((index) => run.pictures.find((picture) => picture.index === index)?.position ?? 0);
  return { model, semantics, allow_weak: weak, job: run.job.id, positions };
}

export function editOf(run, index) {
  if (!run.edits.has(index)) run.edits.set(index, new Edit(index));
  return run.edits.get(index);
}
