// Runs of earlier visits and the favourites: requests, small pictures and edits, kept in the browser, not in the studio.

import { keep, recall } from "./store.js";

const MOST_RUNS = 60;
const THUMB = 72; // side of a small picture in pixels
const SHOWN = 4; // number of small pictures of a run

export class Past {
  constructor(store) {
    this.store = store;
    store.set({ past: recall("past", []), tray: recall("tray", []) });
  }

  find(key) { return this.store.state.past.find((entry) => entry.key === key); }

  // Put a finished run at the top of the list.
  async add(run) {
    const thumbs = await Promise.all(run.pictures.slice(0, SHOWN).map((picture) => shrink(picture.image)));
    const entry = {
      key: run.key,
      query: run.query,
      settings: run.settings,
      fingerprint: run.fingerprint,
      vary: run.vary,
      photo: run.photo,
      job: run.job.id,
      when: Date.now(),
      summary: run.job.summary,
      thumbs,
      edits: this.edits(run),
    };
    this.keepRuns([entry, ...this.store.state.past.filter(({ key }) => key !== run.key)].slice(0, MOST_RUNS));
  }

  // Store the changed steps of the pictures of a run.
  update(run) {
    const entry = this.find(run.key);
    if (!entry) return;
    this.keepRuns(this.store.state.past.map((each) => (each === entry ? { ...entry, edits: this.edits(run) } : each)));
  }

  edits(run) {
    return [...run.edits.values()]
      .filter(({ steps }) => steps.length)
      .map(({ index, steps, options }) => ({ index, steps, options }));
  }

  // If the storage is full, drop the oldest half, so that the newest is always stored.
  keepRuns(past) {
    this.store.set({ past });
    if (!keep("past", past) && past.length > 1) this.keepRuns(past.slice(0, Math.ceil(past.length / 2)));
  }

  forget() { this.keepRuns([]); }

  keepTray(tray) {
    this.store.set({ tray });
    keep("tray", tray);
  }
}

// A small copy of a picture, as a data URI.
export async function shrink(source, side = THUMB) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  const scale = Math.min(1, side / Math.max(image.naturalWidth, image.naturalHeight));
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/webp", 0.85);
}
