// Drawings: each is a run, with its pictures and the edits of them. Those of this visit stay in memory.

import { call, Runner, working } from "./api.js";
import { Edit } from "./edits.js";
import { keyOf, requestOf } from "./share.js";

const MOST_IN_MEMORY = 24;
const GONE = { message: "The photograph is no longer here", hint: "choose it again", spans: [], drawing: "The photograph is no longer here. Choose it again." };

// The request that draws a place. Variations of a photograph, or of other variations, begin with a job: one that the studio
// still has, which `held(place)` returns, or one that `draw(path, body)` draws again. Null if that was cancelled.
export async function requestFor(place, held, draw) {
  const { vary, photo } = place;
  if (!vary?.of) {
    if (vary && photo) await call("GET", `/api/jobs/${photo}`).catch(() => { throw GONE; });
    return requestOf(place, photo);
  }
  const before = { ...place, vary: vary.of };
  const job = await held(before);
  if (job) return requestOf(place, job);
  const request = await requestFor(before, held, draw);
  const drawn = request && await draw(...request);
  return drawn && requestOf(place, drawn);
}

export class Runs {
  constructor(store, past, modelOf) {
    Object.assign(this, { store, past, modelOf, runner: new Runner(), known: new Map() });
  }

  // A new run without pictures; `modelOf` returns {model, language} of its settings.
  make(place) {
    const { query, settings, fingerprint, vary = null, photo = null } = place;
    const key = keyOf(place);
    const run = { key, query, settings, fingerprint, vary, photo, ...this.modelOf(settings.model), job: null, pictures: [], edits: new Map() };
    for (const { index, steps, options } of this.past.find(key)?.edits ?? []) run.edits.set(index, new Edit(index, steps, options));
    const before = this.known.get(key);
    if (before) run.edits = before.edits;
    return run;
  }

  // Draw; `accepted(run)` is called when the studio has accepted the request. False if another drawing replaced it.
  async draw(place, accepted = () => {}) {
    const run = this.make(place);
    return this.watch(run, accepted, async (update) => {
      const request = await requestFor(run, (before) => this.held(before), (path, body) => this.finished(path, body));
      return request && this.runner.run(...request, update);
    });
  }

  // The job of a place, if the studio still has all its pictures; else null.
  async held(place) {
    const key = keyOf(place);
    const id = this.known.get(key)?.job?.id ?? this.past.find(key)?.job;
    const job = id && await call("GET", `/api/jobs/${id}`).catch(() => null);
    return job && job.state === "done" ? id : null;
  }

  // Draw pictures that others begin with; returns the id of the job, or null if another drawing replaced it.
  async finished(path, body) {
    let last = null;
    const current = await this.runner.run(path, body, (job) => { last = job; });
    if (!current) return null;
    if (last.state !== "done") throw last.problem ?? { message: "The drawing was cancelled" };
    return last.id;
  }

  // Show an earlier drawing: from memory, from the studio if it still has it, or drawn again.
  async show(place, accepted = () => {}) {
    const known = this.known.get(keyOf(place));
    if (known && !working(known.job)) {
      this.runner.forget();
      this.store.set({ run: known, failure: null, selected: new Set() });
      accepted(known);
      return true;
    }
    const photo = place.vary ? null : place.photo;
    const job = photo ?? this.past.find(keyOf(place))?.job;
    const found = job && await call("GET", `/api/jobs/${job}`).catch(() => null);
    if (photo && !found) throw GONE;
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
      if (!run.job) throw problem; // the studio did not accept it: the pictures on the wall stay
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
