// The pictures that are selected: edited together, kept, or taken as the pattern of others.

import { $, button, h, plural } from "./dom.js";
import { editOf } from "./edits.js";
import { EditOptions } from "./options.js";
import { askingStep, QueryBox } from "./querybox.js";
import { plainOptions } from "./share.js";

export class Chosen {
  // `actions`: step(edits, steps, options), vary(indices), most pictures of a request, favour(picture), open() the panel, language().
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
      ask: () => askingStep(store.state.run.settings),
      changed: () => this.allow(),
      submit: () => this.submit(),
    });
    this.allow();
    store.on(["selected"], ({ selected }) => this.show(selected));
    store.on(["run"], ({ run }) => {
      if (this.shown === run) return;
      this.shown = run;
      if (!this.busy) this.said.textContent = "";
      this.options = plainOptions();
      this.choice.fill(run.language.attributes, this.options);
    });
  }

  get pictures() { return this.store.state.run.pictures.filter(({ index }) => this.store.state.selected.has(index)); }

  show(selected) {
    $("chosen").hidden = !selected.size;
    this.count.textContent = `${selected.size} selected`;
    $("many-count").textContent = selected.size ? `${plural(selected.size, "picture")} selected.` : "Select pictures first: with X, or Ctrl and a click.";
    this.allow();
  }

  // Pictures that have the same steps already are one request, or several where the studio takes no more at a time.
  groups(run, indices) {
    const groups = new Map();
    for (const edit of indices.map((index) => editOf(run, index))) {
      const key = JSON.stringify(edit.steps);
      groups.set(key, [...(groups.get(key) ?? []), edit]);
    }
    return [...groups.values()].flatMap((edits) => {
      const size = Math.max(1, Math.floor(this.actions.most / (edits[0].steps.length + 1)));
      return Array.from({ length: Math.ceil(edits.length / size) }, (_, part) => edits.slice(part * size, (part + 1) * size));
    });
  }

  async submit() {
    const text = this.box.text.trim();
    const { run } = this.store.state;
    const indices = this.pictures.map(({ index }) => index);
    if (!text || this.busy || !indices.length) return;
    if (this.box.broken) { this.box.focus(); return; }
    this.busy = this.apply.disabled = true;
    let failure = null;
    let done = 0;
    for (const edits of this.groups(run, indices)) {
      this.said.textContent = `Editing ${done + 1} to ${done + edits.length} of ${indices.length}`;
      if (!await this.actions.step(edits, [...edits[0].steps, text], this.options)) failure = edits[0].failure ?? { message: "Cancelled" };
      if (failure || this.store.state.run !== run) break;
      done += edits.length;
    }
    this.busy = false;
    this.said.textContent = failure ? [failure.message, failure.hint].filter(Boolean).join(". ") : `${plural(done, "picture")} edited`;
    if (!failure) this.box.text = "";
    this.allow();
  }

  // Something can be applied to the pictures that are selected.
  allow() { this.apply.disabled = this.busy || !this.box.checked?.ok || !this.store.state.selected.size; }
}
