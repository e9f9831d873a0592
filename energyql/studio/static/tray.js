// The selected pictures, and the favourites, which are stored in the browser and exported as one ZIP.

import { call, Runner } from "./api.js";
import { $, button, h, plural, say } from "./dom.js";
import { chosen } from "./edits.js";
import { shrink } from "./past.js";
import { requestFor } from "./runs.js";
import { plainOptions } from "./share.js";
import { zip } from "./zip.js";

const THUMB = 160;

export class Tray {
  // `actions`: restore(place) shows a place.
  constructor(store, past, actions) {
    Object.assign(this, { store, past, actions, runner: new Runner() });
    this.said = h("p", { class: "faint", role: "status" });
    store.on(["tray"], ({ tray }) => this.show(tray));
    this.show(store.state.tray);
  }

  select({ index }) {
    const selected = new Set(this.store.state.selected);
    if (!selected.delete(index)) selected.add(index);
    this.store.set({ selected });
  }

  // Add or remove a favourite: a request, the number of the picture in its run, and a small picture.
  async favour(picture) {
    const { run, tray } = this.store.state;
    const rest = tray.filter(({ key, index }) => key !== run.key || index !== picture.index);
    if (rest.length < tray.length) { this.past.keepTray(rest); say("No favourite any more"); return; }
    const edit = run.edits.get(picture.index);
    const last = edit?.pictures[edit.pictures.length - 1] ?? picture;
    const thumb = await shrink(last.image, THUMB);
    const { key, query, settings, fingerprint, vary, photo } = run;
    const entry = { key, query, settings, fingerprint, vary, photo, index: picture.index, steps: edit?.steps ?? [], options: edit?.options ?? plainOptions(), thumb };
    this.past.keepTray([...this.store.state.tray, entry]);
    say("A favourite");
  }

  show(tray) {
    $("tray-count").textContent = tray.length || "";
    const items = tray.map((entry) => h("li", {},
      h("button", { type: "button", class: "tile", title: `${entry.query} (${entry.settings.model})`, onclick: () => this.actions.restore({ ...entry, edit: { index: entry.index, steps: entry.steps, options: entry.options } }) },
        h("img", { src: entry.thumb, alt: `Picture ${entry.index} of ${entry.query}`, width: 80, height: 80 })),
      h("span", { class: "below" }, h("span", {}, entry.steps.length ? plural(entry.steps.length, "edit") : `#${entry.index}`),
        h("button", { type: "button", class: "mini", "aria-label": "Remove from the favourites", onclick: () => this.past.keepTray(this.store.state.tray.filter((other) => other !== entry)) }, "×"))));
    $("tray").replaceChildren(...(items.length ? [
      h("ul", { class: "wall", role: "list" }, items),
      h("div", { class: "run" }, button("Export as ZIP", (event) => this.export(event.target)), button("Clear", () => this.past.keepTray([]))),
      this.said,
    ] : [h("p", { class: "faint" }, "Press F on a picture, or its heart, to keep it here.")]));
  }

  // Every favourite is drawn again in full size, so the ZIP holds the same files that a download gives.
  async export(from) {
    const { tray } = this.store.state;
    from.disabled = true;
    try {
      const files = [];
      for (const [number, entry] of tray.entries()) {
        this.said.textContent = `Drawing ${number + 1} of ${tray.length}`;
        files.push([`energyql/${String(number).padStart(2, "0")}-${entry.index}.png`, await this.fetch(entry)]);
      }
      const list = tray.map(({ thumb: _t, key: _k, ...rest }) => rest);
      files.push(["energyql/favourites.json", new TextEncoder().encode(JSON.stringify(list, null, 2))]);
      const url = URL.createObjectURL(new Blob([zip(files)], { type: "application/zip" }));
      h("a", { href: url, download: "energyql-favourites.zip" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      this.said.textContent = `${plural(tray.length, "picture")} exported`;
    } catch (problem) {
      this.said.textContent = problem.message ?? String(problem);
    }
    from.disabled = false;
  }

  async fetch({ query, settings: { n, ...settings }, vary, photo, index, steps, options }) {
    let job = null;
    const run = async (path, body) => {
      await this.runner.run(path, body, (now) => { job = now; });
      if (job.state !== "done") throw job.problem ?? { message: "The export was cancelled" };
    };
    let at = 0;
    if (photo || vary) {
      if (!vary) job = await call("GET", `/api/jobs/${photo}`);
      else await run(...await requestFor({ query, settings: { n, ...settings }, vary, photo }, () => null, async (path, body) => { await run(path, body); return job.id; }));
      at = vary ? index : 0;
      const { model, semantics, allow_weak: weak } = settings;
      if (steps.length) await run("/api/edits", { model, semantics, allow_weak: weak, job: job.id, positions: [at], steps, ...chosen(options) });
    } else if (steps.length) {
      await run("/api/edits", { ...settings, query, index, steps, ...chosen(options) });
    } else {
      await run("/api/jobs", { ...settings, query, n: 1, first: index });
    }
    const answer = await fetch(`/api/jobs/${job.id}/pictures/${steps.length || at}.png`);
    if (!answer.ok) throw await answer.json();
    return new Uint8Array(await answer.arrayBuffer());
  }
}
