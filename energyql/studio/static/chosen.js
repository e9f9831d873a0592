// The pictures that are selected: edited together, kept, or taken as the pattern of others.

import { $, button, h, plural } from "./dom.js";
import { editOf } from "./edits.js";
import { EditOptions } from "./options.js";
import { asking, QueryBox } from "./querybox.js";
import { plainOptions } from "./share.js";

export class Chosen {
  // `actions`: step(edit, steps, options), vary(indices), favour(picture), open() the panel, language().
  constructor(store, actions) {
    Object.assign(this, { store, actions, options: plainOptions(), busy: false });
    this.count = h("strong", { role: "status" });
    $("chosen").replaceChildren(
      this.count,
      button("Edit together", () => { actions.open(); this.box.focus(); }),
      button("More like these", () => actions.vary([...store.state.selected])),
      button("Favourites", () => { for (const picture of this.pictures) actions.favour(picture); }),
      button("Select all", () => store.set({ selected: new Set(store.state.run.pictures.map(({ index }) => index)) })),
      button("Clear", () => store.set({ selected: new Set() })),
    );
    const box = h("div");
    this.apply = button("Apply to all", () => this.submit(), { class: "primary" });
    this.choice = new EditOptions((options) => { this.options = options; });
    this.said = h("p", { class: "facts", role: "status" });
    $("many").replaceChildren(box, h("div", { class: "run" }, this.apply), this.said, this.choice.node);
    this.box = new QueryBox(box, {
      label: "What should become true of all of them",
      placeholder: "hat",
      language: actions.language,
      ask: () => asking(store.state.run.settings),
      changed: (check) => { this.apply.disabled = !check?.ok || this.busy; },
      submit: () => this.submit(),
    });
    this.apply.disabled = true;
    store.on(["selected"], ({ selected }) => this.show(selected));
    store.on(["run"], ({ run }) => {
      if (this.shown === run) return;
      this.shown = run;
      this.options = plainOptions();
      this.choice.fill(run.language.attributes, this.options);
    });
  }

  get pictures() { return this.store.state.run.pictures.filter(({ index }) => this.store.state.selected.has(index)); }

  show(selected) {
    $("chosen").hidden = !selected.size;
    this.count.textContent = `${selected.size} selected`;
    $("many-count").textContent = selected.size ? `${plural(selected.size, "picture")} selected.` : "Select pictures first: with X, or Ctrl and a click.";
  }

  // One picture after the other, each after the steps that it has already.
  async submit() {
    const text = this.box.text.trim();
    const { run } = this.store.state;
    const indices = this.pictures.map(({ index }) => index);
    if (!text || this.busy || !indices.length) return;
    if (this.box.broken) { this.box.focus(); return; }
    this.busy = this.apply.disabled = true;
    let failure = null;
    for (const [done, index] of indices.entries()) {
      this.said.textContent = `Editing ${done + 1} of ${indices.length}`;
      const edit = editOf(run, index);
      if (!await this.actions.step(edit, [...edit.steps, text], this.options)) failure = edit.failure ?? { message: "cancelled" };
      if (failure || this.store.state.run !== run) break;
    }
    this.busy = this.apply.disabled = false;
    this.said.textContent = failure ? `${failure.message}. ${failure.hint ?? ""}` : `${plural(indices.length, "picture")} edited`;
    if (!failure) this.box.text = "";
  }
}
