// The enlarged picture `store.open`: its facts, and its edits step by step.

import { $, button, copyFrom, h, say } from "./dom.js";
import { editOf } from "./edits.js";
import { evidence, offers, verdicts } from "./facts.js";
import { film, stage } from "./film.js";
import { EditOptions } from "./options.js";
import { askingStep, QueryBox } from "./querybox.js";

const MOST_OFFERS = 40;

export class Detail {
  // `page` has the functions for other parts of the page: limits, link(), step(edit, steps, options), go(by), close(),
  // typed(), language(), favour(picture), seed(), vary(picture).
  constructor(store, page) {
    Object.assign(this, { store, page, dialog: $("view"), at: 0, wiping: false, share: 50, shown: null });
    this.build(page);
    store.on(["open", "run"], (state) => this.show(state));
  }

  build(page) {
    this.title = h("h2", { id: "view-name", tabindex: "-1" });
    this.stage = h("div", { class: "stage" });
    this.wipe = button("Before and after", () => { this.wiping = !this.wiping; this.draw(); }, { "aria-pressed": "false" });
    this.strip = h("ol", { class: "film", "aria-label": "Steps" });
    this.verdict = h("div", { class: "known" });
    this.facts = h("div", { class: "known view-facts" });
    this.message = h("div", { class: "failure", role: "alert", hidden: true });
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "Editing" });
    const box = h("div", { class: "editbox" });
    this.apply = button("Apply", () => this.submit(), { class: "primary" });
    this.undo = button("Undo", () => this.back());
    this.stop = button("Cancel", () => this.edit.runner.cancel());
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Quick edits" });
    this.options = new EditOptions((options) => { if (this.edit.steps.length) this.go(this.edit.steps, options); else Object.assign(this.edit, { options }); });
    this.previous = button("←", () => this.page.go(-1), { "aria-label": "Previous picture", title: "Previous (←)" });
    this.next = button("→", () => this.page.go(1), { "aria-label": "Next picture", title: "Next (→)" });
    this.heart = button("♡", () => this.page.favour(this.picture), { title: "Favourite (F)" });
    this.png = h("a", { class: "plain", download: true }, "Download PNG");
    this.link = button("Copy link", () => copyFrom(this.link, this.page.link()));
    this.dialog.replaceChildren(
      h("div", { class: "view-head" }, this.title, this.previous, this.next, h("span", { class: "gap" }), this.heart, button("Close", () => this.page.close(), { class: "plain close" })),
      h("div", { class: "view-left" }, this.stage, h("div", { class: "run" }, this.wipe), this.strip),
      h(
        "div",
        { class: "view-right" },
        this.verdict,
        h("section", { class: "edit", "aria-label": "Edit" }, h("h3", {}, "Edit this picture"), box, this.message, this.progress,
          h("div", { class: "run" }, this.apply, this.undo, this.stop), this.chips, this.options.node),
      ),
      this.facts,
      h("div", { class: "buttons" }, button("Use its seed", () => this.page.seed()), button("More like this", () => this.page.vary(this.picture)),
        h("label", { class: "amount" }, h("span", {}, "how far"), h("input", { type: "range", id: "amount", min: 0, max: 1, step: 0.05, value: 0.3 })), h("span", { class: "gap" }), this.link, this.png),
    );
    this.box = new QueryBox(box, {
      label: "What should become true of this picture",
      placeholder: "glasses AND hair = red",
      language: () => this.run?.language ?? page.language(),
      ask: () => askingStep(this.run.settings),
      changed: (check) => this.typed(check),
      submit: () => this.submit(),
    });
    // Escape closes the picture by a change of the address, so that Back works.
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); this.page.close(); });
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.page.close(); });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
  }

  get run() { return this.store.state.run; }

  get edit() { return editOf(this.run, this.store.state.open); }

  // The picture on the wall; none until it is drawn.
  get picture() { return this.run.pictures.find(({ index }) => index === this.store.state.open) ?? this.edit.pictures[0] ?? null; }

  get pictures() { return this.edit.pictures.length ? this.edit.pictures : this.picture ? [this.picture] : []; }

  show({ open, run }) {
    if (open === null || !run) {
      if (this.dialog.open) this.dialog.close();
      this.shown = this.parts = null;
      return;
    }
    const key = `${run.key} ${open}`;
    if (this.shown !== key) {
      this.shown = key;
      this.at = this.pictures.length - 1;
      this.box.text = this.edit.draft;
      this.options.fill(run.language.attributes, this.edit.options);
      if (!this.dialog.open) this.dialog.showModal();
      this.title.focus();
    }
    this.draw();
  }

  // Show the picture after the first `at` steps; later steps stay in the row.
  look(at) {
    this.at = at;
    this.draw();
  }

  // Show the picture at step `at` with all its facts.
  draw() {
    const { edit, pictures } = this;
    if (this.known !== pictures.length) this.at = pictures.length - 1;
    this.known = pictures.length;
    const at = Math.max(0, Math.min(this.at, pictures.length - 1));
    const picture = pictures[at];
    this.title.textContent = `Picture #${edit.index}`;
    this.dialog.classList.toggle("busy", edit.busy);
    this.apply.disabled = edit.busy || !this.box.checked?.ok;
    this.undo.disabled = edit.busy || !edit.steps.length;
    this.stop.hidden = !edit.busy;
    this.progress.value = edit.fraction;
    this.message.hidden = !edit.failure;
    if (edit.failure) this.message.textContent = [edit.failure.message, edit.failure.hint].filter(Boolean).join(". ");
    this.previous.disabled = !this.neighbour(-1);
    this.next.disabled = !this.neighbour(1);
    const favoured = this.store.state.tray.some(({ key, index }) => key === this.run.key && index === edit.index);
    this.heart.textContent = favoured ? "♥" : "♡";
    this.heart.setAttribute("aria-pressed", String(favoured));
    this.heart.setAttribute("aria-label", "Favourite");
    this.heart.disabled = !this.picture;
    this.wipe.disabled = at === 0;
    this.wipe.setAttribute("aria-pressed", String(this.wiping && at > 0));
    const place = edit.steps.length ? { job: edit.known.job, position: picture?.position } : { job: this.run.job.id, position: picture?.position };
    this.png.hidden = !picture || edit.busy;
    this.png.href = `/api/jobs/${place.job}/pictures/${place.position}.png`;
    this.strip.replaceChildren(...film({ pictures: pictures.length > 1 ? pictures : [], steps: edit.steps, at, choose: (chosen) => { this.look(chosen); this.strip.querySelectorAll("button")[chosen].focus(); } }));
    // Replace the elements only after a change, so that the focus stays.
    const parts = [picture, at, this.wiping, edit.busy];
    if (this.parts?.every((part, each) => part === parts[each])) return;
    this.parts = parts;
    this.paint(picture, at);
  }

  paint(picture, at) {
    if (!picture) {
      for (const part of [this.stage, this.verdict, this.facts, this.chips]) part.replaceChildren();
      this.stage.append(h("span", { class: "frame empty" }));
      return;
    }
    this.stage.replaceChildren(stage(picture, at ? this.pictures[0] : null, this.wiping, this.share, (share) => { this.share = share; }));
    this.verdict.replaceChildren(...verdicts(picture, this.run, at > 0).filter(Boolean));
    this.facts.replaceChildren(...evidence(picture, this.run));
    this.chips.replaceChildren(...offers(picture, this.run.language).slice(0, MOST_OFFERS).map((text) => h(
      "button",
      { type: "button", class: "chip", disabled: this.edit.busy, onclick: () => { this.box.text = text; this.add(text); } },
      text,
    )));
  }

  neighbour(by) {
    const { pictures } = this.run;
    const place = pictures.findIndex(({ index }) => index === this.store.state.open);
    return place < 0 ? null : pictures[place + by] ?? null;
  }

  typed(check) {
    if (this.shown === null) return; // the picture was closed meanwhile
    this.edit.draft = this.box.text;
    this.apply.disabled = !check?.ok || this.edit.busy;
    this.page.typed();
  }

  submit() {
    const text = this.box.text.trim();
    if (!text || this.edit.busy) return;
    if (this.box.broken) { this.box.focus(); return; }
    this.add(text);
  }

  async add(text) {
    const { edit } = this;
    if (edit.steps.length >= this.page.limits.steps) {
      edit.failure = { message: `This studio takes ${this.page.limits.steps} steps`, hint: "Undo one first" };
      this.draw();
      return;
    }
    if (await this.go([...edit.steps, text], edit.options)) {
      edit.draft = "";
      if (this.edit !== edit) return; // another picture was opened meanwhile
      this.box.text = "";
      say(`Step ${edit.steps.length}: ${this.pictures[this.pictures.length - 1].alt}`);
    } else if (edit.failure && this.edit === edit && this.box.refuse(text, edit.failure)) {
      edit.failure = null;
      this.draw();
    }
  }

  back() {
    const { edit } = this;
    if (edit.busy || !edit.steps.length) return;
    const last = edit.steps[edit.steps.length - 1];
    this.box.text = edit.draft = last; // so that the visitor can change and apply it again
    this.go(edit.steps.slice(0, -1), edit.options);
    say(`Undone: ${last}`);
  }

  go(steps, options) { return this.page.step(this.edit, steps, options); }

  key(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && event.target !== this.box.area && this.edit.steps.length) {
      event.preventDefault();
      this.back();
    }
  }
}
