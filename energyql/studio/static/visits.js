// Where the visitor is: on the wall, in a picture, at one of its steps, or at rows that are compared; with the address.

import { $ } from "./dom.js";
import { editOf, goTogether } from "./edits.js";

const VARIATIONS = 8;

export class Visits {
  // `parts`: navigation, runs, past, wall, detail, board; set when they exist.
  constructor(store) {
    this.store = store;
    this.parts = {};
  }

  // The run on the wall, and the picture that is open.
  get shown() {
    const { run, open } = this.store.state;
    const { query, settings, fingerprint, vary, photo } = run;
    const edit = open === null ? null : editOf(run, open);
    return { query, settings, fingerprint, vary, photo, edit: edit && { index: open, steps: edit.steps, options: edit.options } };
  }

  open({ index }) {
    const { navigation } = this.parts;
    this.store.set({ open: index });
    navigation.push(this.shown, navigation.depth + 1);
    this.fetch(index);
  }

  // Of an earlier visit the texts of the steps are stored: their pictures are drawn again.
  fetch(index) {
    const edit = editOf(this.store.state.run, index);
    if (edit.steps.length && !edit.pictures.length) this.step(edit, edit.steps, edit.options, false);
  }

  // Go to these steps of a picture; with `told` they become an address. False if their pictures did not arrive.
  async step(edit, steps, options, told = true) {
    const { store } = this;
    const { run } = store.state;
    const { navigation, past } = this.parts;
    const done = await edit.go(run, steps, options, () => store.touched("run"));
    if (!done) return false;
    past.update(run);
    if (told && store.state.run === run && store.state.open === edit.index) navigation.push(this.shown, navigation.depth + 1);
    return true;
  }

  // The same for several pictures that have the same steps.
  async stepTogether(edits, steps, options) {
    const { run } = this.store.state;
    const done = await goTogether(run, edits, steps, options, () => this.store.touched("run"));
    if (done) this.parts.past.update(run);
    return done;
  }

  close() {
    const { open } = this.store.state;
    if (this.parts.navigation.leave({ ...this.shown, edit: null })) this.store.set({ open: null });
    this.parts.wall.focus(open);
  }

  goBy(by) {
    const next = this.parts.detail.neighbour(by);
    if (!next) return;
    this.store.set({ open: next.index });
    this.parts.navigation.replace(this.shown);
    this.fetch(next.index);
  }

  // Show the part of a place that is not the run. Later steps than those of the address stay: Back shows an earlier one.
  arrive(place, draft) {
    const { wall, detail, board } = this.parts;
    if (place.board) board.show(place.board);
    else board.hide();
    if (!place.edit) {
      const { open } = this.store.state;
      this.store.set({ open: null });
      if (open !== null) wall.focus(open);
      return;
    }
    const { index, steps, options } = place.edit;
    const edit = editOf(this.store.state.run, index);
    if (draft?.step) edit.draft = draft.step;
    this.store.set({ open: index });
    if (edit.steps.length >= steps.length && edit.has(steps, options)) detail.look(steps.length);
    else if (steps.length) this.step(edit, steps, options, false);
  }

  // The place of variations of the pictures with these numbers. They satisfy the query, or that of a single picture's edit.
  variations(indices, most) {
    const { run } = this.store.state;
    const edited = indices.length === 1 && run.edits.get(indices[0])?.pictures.at(-1)?.query;
    const vary = { indices, amount: Number($("amount").value), seed: Math.floor(Math.random() * 1_000_000), wanted: edited || run.vary?.wanted || null, of: run.vary };
    return { query: run.query, settings: { ...run.settings, n: Math.min(VARIATIONS, most) }, fingerprint: run.fingerprint, vary, photo: run.photo };
  }

  // `place` has the settings beside the photograph, `upload()` returns its job. Returns the job when it has ended.
  async photograph(place, upload) {
    await this.parts.runs.photograph(place, upload, (run) => {
      this.parts.navigation.push({ ...place, photo: run.photo });
      this.store.set({ open: null });
      this.parts.board.hide();
    });
    return this.store.state.run.job;
  }

  compare(board) {
    this.parts.navigation.push({ ...this.shown, edit: null, board });
    this.parts.board.show(board);
  }
}
