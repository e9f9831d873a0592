// Drawings: each is a run, with its pictures and the edits of them. Those of this visit stay in memory.

import { call, Runner, working } from "./api.js";
import { Edit } from "./edits.js";
import { keyOf, requestOf } from "./share.js";

const MOST_IN_MEMORY = 24;
const GONE = { message: "The photograph is no longer here", hint: "choose it again", spans: [], drawing: "The photograph is no longer here. Choose it again." };

export class Runs {
  constructor(store, past, modelOf) {
    Object.assign(this, { store, past, modelOf, runner: new Runner(), known: new Map() });
  }

  // A run that has drawn nothing yet; `modelOf` gives {model, language} of its settings.
  make(place) {
    const { query, settings, fingerprint, vary = null, photo = null } = place;
    const key = keyOf(place);
    const run = { key, query, settings, fingerprint, vary, photo, ...this.modelOf(settings.model), job: null, pictures: [], edits: new Map() };
    for (const { index, steps, options } of this.past.find(key)?.edits ?? []) run.edits.set(index, new Edit(index, steps, options));
    const before = this.known.get(key);
    if (before) run.edits = before.edits;
    return run;
  }

  // Draw; `accepted(run)` is called when the studio has taken it and the wall has made room. False if another drawing
  // took its place.
  async draw(place, accepted = () => {}) {
    const run = this.make(place);
    return this.watch(run, accepted, (update) => this.runner.run(...requestOf(run), update));
  }

  // Show a drawing that was made before: from memory, from the studio if it still has it, or drawn again.
  async show(place, accepted = () => {}) {
    const known = this.known.get(keyOf(place));
    if (known && !working(known.job)) {
      this.runner.forget();
      this.store.set({ run: known, failure: null, selected: new Set() });
      accepted(known);
      return true;
    }
    const job = place.photo ?? this.past.find(keyOf(place))?.job;
    const found = job && await call("GET", `/api/jobs/${job}`).catch(() => null);
    if (place.photo && !found) throw GONE;
    if (!found || found.state !== "done") return this.draw(place, accepted);
    return this.watch(this.make(place), accepted, (update) => this.runner.follow(found, update));
  }

  // Find the latents of a photograph: a run with one picture, its reconstruction. `upload()` returns the job.
  async photograph(place, upload, accepted) {
    const job = await upload();
    return this.watch(this.make({ ...place, photo: job.id }), accepted, (update) => this.runner.follow(job, update));
  }

  async watch(run, accepted, start) {
    const update = (job, fresh) => {
      const first = !run.job;
      run.job = job;
      run.pictures.push(...fresh);
      if (first) {
        this.remember(run);
        this.store.set({ run, failure: null, selected: new Set() });
        accepted(run);
      } else {
        this.store.touched("run");
      }
    };
    try {
      const current = await start(update);
      if (current) await this.finish(run);
      return current;
    } catch (problem) {
      if (!run.job) throw problem; // the studio did not take it: what is on the wall stays
      run.job = { ...run.job, state: "failed", problem };
      this.store.set({ run, failure: problem });
      return true;
    }
  }

  async finish(run) {
    if (run.job.problem) this.store.set({ failure: run.job.problem });
    if (run.job.state === "done") await this.past.add(run);
  }

  remember(run) {
    this.known.delete(run.key);
    this.known.set(run.key, run);
    for (const key of [...this.known.keys()].slice(0, -MOST_IN_MEMORY)) this.known.delete(key);
  }

  cancel() { this.runner.cancel(); }
}
