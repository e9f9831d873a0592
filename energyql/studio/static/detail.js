// One picture enlarged: what is known of it, and its edits, step by step, with undo.

import { Runner } from "./api.js";
import { $, badge, copy, h, mark, say } from "./dom.js";
import { asking, QueryBox } from "./editor.js";
import { code, shown } from "./wall.js";

export class Detail {
  // `page` gives what the dialog needs of the rest: limits, drawn() with {query, settings, model, language, job} of the
  // pictures on the wall, link(edit), neighbour(picture, by), edited(edit), closed(picture).
  constructor(page) {
    this.page = page;
    this.runner = new Runner();
    this.dialog = $("view");
    this.build();
  }

  build() {
    const button = (text, action, extra = {}) => h("button", { type: "button", class: "plain", onclick: action, ...extra }, text);
    this.title = h("h2", { id: "view-name", tabindex: "-1" });
    this.stage = h("div", { class: "stage" });
    this.strip = h("ol", { class: "film", "aria-label": "Steps" });
    this.verdict = h("div", { class: "known" });
    this.facts = h("div", { class: "known" });
    this.message = h("div", { class: "failure", role: "alert", hidden: true });
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "Editing", hidden: true });
    const box = h("div", { class: "editbox" });
    this.apply = button("Apply", () => this.submit(), { class: "primary" });
    this.undo = button("Undo", () => this.back());
    this.stop = button("Cancel", () => this.runner.cancel(), { hidden: true });
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Quick edits" });
    this.previous = button("←", () => this.go(-1), { "aria-label": "Previous picture" });
    this.previous.append(h("span", { class: "word-only" }, "\u00a0Previous"));
    this.next = button("", () => this.go(1), { "aria-label": "Next picture" });
    this.next.append(h("span", { class: "word-only" }, "Next\u00a0"), "→");
    this.png = h("a", { class: "plain", download: true }, "Download PNG");
    this.link = button("Copy link", () => this.share());
    this.dialog.replaceChildren(
      h("div", { class: "view-head" }, this.title, button("Close", () => this.dialog.close(), { class: "plain close" })),
      h("div", { class: "view-left" }, this.stage, this.strip),
      h(
        "div",
        { class: "view-right" },
        this.verdict,
        h("section", { class: "edit", "aria-label": "Edit" }, h("h3", {}, "Edit this picture"), box, this.message, this.progress,
          h("div", { class: "run" }, this.apply, this.undo, this.stop), this.chips),
        this.facts,
      ),
      h("div", { class: "buttons" }, this.previous, this.next, h("span", { class: "gap" }), this.link, this.png),
    );
    this.box = new QueryBox(box, {
      label: "What should become true of this picture",
      placeholder: "glasses AND hair = red",
      language: () => this.page.drawn().language,
      ask: () => asking(this.page.drawn().settings),
      changed: (check) => { this.apply.disabled = !check?.ok || this.busy; },
      submit: () => this.submit(),
    });
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "z" && event.target !== this.box.area && this.steps.length) {
        event.preventDefault();
        this.back();
      }
    });
  }

  // A picture of the wall, or, for a link, just {index} with the steps that were made of it.
  open(picture, steps = [], job = "") {
    this.start = picture;
    this.index = picture.index;
    this.job = job;
    this.steps = this.wanted = []; // those that are done, and those on their way
    this.pictures = picture.image ? [picture] : [];
    this.at = 0;
    this.busy = false;
    this.message.hidden = true;
    this.box.text = "";
    this.show();
    if (!this.dialog.open) this.dialog.showModal();
    this.title.focus();
    if (steps.length) this.run(steps);
  }

  closed() {
    this.runner.forget();
    this.page.closed(this.start);
  }

  go(by) {
    const next = this.page.neighbour(this.start, by);
    if (!next) return;
    this.runner.forget();
    this.open(next, [], this.page.drawn().job);
    this.page.edited(this.state);
  }

  get state() { return { index: this.index, steps: this.steps }; }

  submit() {
    const text = this.box.text.trim();
    if (!text || this.busy) return;
    if (this.box.broken) { this.box.focus(); return; }
    if (this.steps.length >= this.page.limits.steps) {
      this.fail({ message: `this studio takes ${this.page.limits.steps} steps`, hint: "undo one first" });
      return;
    }
    this.run([...this.steps, text]);
  }

  back() {
    if (this.busy || !this.steps.length) return;
    const last = this.steps[this.steps.length - 1];
    this.steps = this.wanted = this.steps.slice(0, -1);
    this.pictures = this.pictures.slice(0, -1);
    this.at = this.pictures.length - 1;
    this.message.hidden = true;
    this.box.text = last; // to be changed, and applied again
    this.show();
    this.page.edited(this.state);
    say(`Undone: ${last}`);
  }

  // The studio keeps nothing between steps: it is sent all of them, and answers with all pictures.
  async run(steps) {
    const before = this.pictures;
    const found = [];
    this.wanted = steps;
    this.busy = true;
    this.message.hidden = true;
    this.show();
    try {
      const { query, settings: { n: _n, ...settings } } = this.page.drawn();
      const request = { ...settings, query, index: this.index, steps };
      const current = await this.runner.run("/api/edits", request, (job, fresh) => {
        found.push(...fresh);
        this.last = job;
        this.progress.value = (found.length + (job.stage === "editing" ? job.fraction : 0)) / (steps.length + 1);
        if (found.length > before.length) {
          this.pictures = [...found];
          this.at = found.length - 1;
          this.show();
        }
      });
      if (!current) return;
      this.busy = false;
      if (this.last.state === "done") {
        this.steps = steps;
        this.pictures = found;
        this.job = this.last.id;
        this.box.text = "";
        say(`Step ${steps.length}: ${found[found.length - 1].alt}`);
      } else {
        this.pictures = before;
        if (this.last.problem) this.fail(this.last.problem);
      }
    } catch (problem) {
      this.busy = false;
      this.pictures = before;
      if (!this.box.refuse(steps[steps.length - 1], problem)) this.fail(problem);
    }
    this.wanted = this.steps;
    this.at = Math.max(0, this.pictures.length - 1);
    this.show();
    this.page.edited(this.state);
  }

  fail({ message, hint }) {
    this.message.hidden = false;
    this.message.textContent = [message, hint].filter(Boolean).join(". ");
  }

  async share() {
    const done = await copy(this.page.link(this.state));
    this.link.textContent = done ? "Copied" : "Not copied";
    say(done ? "The link is copied" : "The link could not be copied");
    setTimeout(() => { this.link.textContent = "Copy link"; }, 1600);
  }

  show() {
    const picture = this.pictures[this.at];
    this.title.textContent = `Picture #${this.index}`;
    this.apply.disabled = this.busy || !this.box.checked?.ok;
    this.undo.disabled = this.busy || !this.steps.length;
    this.stop.hidden = this.progress.hidden = !this.busy;
    this.previous.disabled = !this.page.neighbour(this.start, -1);
    this.next.disabled = !this.page.neighbour(this.start, 1);
    const position = this.steps.length || !this.start.image ? this.at : this.start.position;
    this.png.hidden = !this.job || this.busy;
    this.png.href = `/api/jobs/${this.job}/pictures/${position}.png`;
    this.film();
    if (!picture) {
      this.stage.replaceChildren(h("span", { class: "frame empty" }));
      this.verdict.replaceChildren();
      this.facts.replaceChildren();
      this.chips.replaceChildren();
      return;
    }
    const image = h("img", { src: picture.image, alt: picture.alt, width: picture.width, height: picture.height });
    if (picture.width <= 64) image.classList.add("small");
    this.stage.replaceChildren(h("span", { class: "frame" }, image, badge(picture.satisfied)));
    this.describe(picture);
    this.offer(picture);
  }

  film() {
    this.strip.hidden = this.pictures.length < 2 && !this.busy;
    this.strip.replaceChildren(...this.pictures.map((picture, place) => h(
      "li",
      {},
      h(
        "button",
        {
          type: "button",
          class: "tile",
          "aria-current": place === this.at ? "step" : undefined,
          "aria-label": place ? `Step ${place}: ${this.wanted[place - 1]}` : "As it was",
          title: place ? this.wanted[place - 1] : "As it was",
          onclick: () => { this.at = place; this.show(); },
        },
        h("img", { src: picture.image, alt: "", width: picture.width, height: picture.height }),
        h("span", { class: "below" }, place ? this.wanted[place - 1] : "As it was"),
      ),
    )));
  }

  describe(picture) {
    const rows = picture.clauses.map(({ text, probability }) => {
      const bar = h("span", { class: "meter", "aria-hidden": "true" }, h("i", { class: probability !== null && probability < 0.5 ? "low" : "" }));
      bar.firstChild.style.width = `${100 * (probability ?? 0)}%`;
      return h("tr", {}, h("th", { scope: "row" }, code(text, this.page.drawn().language)), h("td", {}, bar),
        h("td", { class: "count" }, probability === null ? "?" : probability.toFixed(3)));
    });
    const [verdict, rest] = picture.verdict.match(/^([^,:]*)(.*)$/s).slice(1);
    const solver = picture.status === "OK" ? "" : ` The solver ended early (${picture.status.toLowerCase().replaceAll("_", " ")}).`;
    this.verdict.replaceChildren(
      code(picture.query, this.page.drawn().language),
      h("p", { class: `says ${mark(picture.satisfied)}` }, h("strong", {}, verdict),
        `${rest}. ${shown(picture).replace(" ", "\u00a0")}.${solver}`),
      this.changes(picture),
    );
    this.facts.replaceChildren(
      h("h3", {}, "How sure is each clause"),
      h("table", { class: "clauses" }, h("tbody", {}, rows)),
      ...(this.page.drawn().model.judge ? [
        h("h3", {}, `What the ${this.page.drawn().model.judge} sees`),
        h("p", { class: "read" }, reading(picture.judged)),
      ] : []),
    );
  }

  changes({ changes, superseded }) {
    if (!this.at) return "";
    const gone = superseded.length ? h("p", {}, `In place of: ${superseded.join(", ")}`) : null;
    if (!changes.length) return h("div", { class: "changes" }, gone, h("p", {}, "Nothing else changed."));
    const items = changes.map(({ attribute, before, after, implied }) => h("li", {}, h("code", {}, attribute), ` ${before} → ${after}`, implied ? h("span", { class: "faint" }, ", which the query needs") : null));
    return h("div", { class: "changes" }, gone, h("p", {}, "Changed as well:"), h("ul", {}, items));
  }

  // The other side of every yes/no attribute, and the other classes of the rest, one click each.
  offer(picture) {
    const offers = [];
    for (const { name, written, kind, values } of this.page.drawn().language.attributes) {
      const value = picture.judged[name];
      if (kind === "yes/no") offers.push(value === true ? `NOT ${written}` : written);
      if (kind === "categorical") offers.push(...values.filter((other) => other !== value).map((other) => `${written} = ${other}`));
    }
    this.chips.replaceChildren(...offers.slice(0, 40).map((text) => h(
      "button",
      { type: "button", class: "chip", disabled: this.busy, onclick: () => { this.box.text = text; this.run([...this.steps, text]); } },
      text,
    )));
  }
}

// What the judge sees, in a line.
function reading(judged) {
  const yes = [];
  const no = [];
  for (const [name, value] of Object.entries(judged)) {
    if (typeof value === "boolean") (value ? yes : no).push(name);
    else if (value !== null) yes.push(`${name} = ${typeof value === "number" ? value.toFixed(2) : value}`);
  }
  return [yes.join(", "), no.length ? `no ${no.join(", ")}` : ""].filter(Boolean).join("; ");
}
