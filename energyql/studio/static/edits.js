// The edits of one picture. The studio keeps nothing between steps: it is sent all of them, and answers with all pictures.

import { Runner } from "./api.js";
import { plainOptions } from "./share.js";

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export class Edit {
  constructor(index, steps = [], options = plainOptions()) {
    Object.assign(this, { index, steps, options });
    this.known = { steps: [], options, pictures: [], job: "" }; // the longest row of pictures that is here
    this.coming = null; // the steps that are on their way
    this.draft = "";
    this.failure = null;
    this.fraction = 0;
    this.runner = new Runner();
  }

  get busy() { return this.coming !== null; }

  // The start and the picture after each step; fewer where some have not come yet.
  get pictures() { return this.has(this.steps, this.options) ? this.known.pictures.slice(0, this.steps.length + 1) : []; }

  has(steps, options) {
    return this.known.pictures.length > steps.length && same(options, this.known.options) && same(steps, this.known.steps.slice(0, steps.length));
  }

  // Go to these steps; `changed()` is called with everything that is new. False if they did not come.
  async go(run, steps, options, changed) {
    this.failure = null;
    if (!steps.length || this.has(steps, options)) {
      this.runner.forget();
      Object.assign(this, { steps, options, coming: null });
      changed();
      return true;
    }
    const request = { ...sourceOf(run, this.index), steps, ...chosen(options) };
    const pictures = [];
    let last = null;
    this.coming = steps;
    this.fraction = 0;
    changed();
    try {
      const current = await this.runner.run("/api/edits", request, (job, fresh) => {
        pictures.push(...fresh);
        last = job;
        this.fraction = (pictures.length + (job.stage === "editing" ? job.fraction : 0)) / (steps.length + 1);
        changed();
      });
      if (!current) return false;
    } catch (problem) {
      this.coming = null;
      this.failure = problem;
      changed();
      return false;
    }
    this.coming = null;
    if (last.state === "done") {
      this.known = { steps, options, pictures, job: last.id };
      Object.assign(this, { steps, options });
    } else {
      this.failure = last.problem;
    }
    changed();
    return last.state === "done";
  }
}

// Options of an edit, without those that are as usual.
export const chosen = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null));

// What the studio is told of the picture that is edited: of a drawing its number, which it can always draw again; other
// pictures are those of a job.
function sourceOf(run, index) {
  const { n: _n, ...settings } = run.settings;
  if (!run.vary && !run.photo) return { ...settings, query: run.query, index };
  const { model, semantics, allow_weak: weak } = settings;
  return { model, semantics, allow_weak: weak, job: run.job.id, positions: [run.pictures.find((picture) => picture.index === index)?.position ?? 0] };
}

export function editOf(run, index) {
  if (!run.edits.has(index)) run.edits.set(index, new Edit(index));
  return run.edits.get(index);
}
