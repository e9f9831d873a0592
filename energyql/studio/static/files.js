// Files that a visitor drops or chooses: a picture that energyql saved is drawn again, any other is a photograph.

import { $, button, h } from "./dom.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];

async function send(path, file) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": file.type }, body: file });
  const found = await answer.json();
  if (!answer.ok) throw found;
  return found;
}

export class Files {
  // `actions`: restore(request, index, notes) draws a picture again, photograph(upload) shows one, fail(problem),
  // model() is the name of the model.
  constructor(actions) {
    this.actions = actions;
    $("photo").addEventListener("change", ({ target }) => { if (target.files[0]) this.photograph(target.files[0]); target.value = ""; });
    $("provenance").addEventListener("change", ({ target }) => { if (target.files[0]) this.take(target.files[0]); target.value = ""; });
    document.addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
    document.addEventListener("drop", (event) => {
      document.body.classList.remove("dropping");
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.take(event.dataTransfer.files[0]);
    });
  }

  // Read the provenance in a file; a picture without one may be edited as a photograph.
  async take(file) {
    this.say();
    if (!KINDS.includes(file.type)) { this.say("This is no PNG, JPEG or WebP."); return; }
    if (file.type !== "image/png") { this.offer(file, "A picture from elsewhere."); return; }
    try {
      const { path, request, index, notes } = await send("/api/provenance", file);
      if (!path) { this.offer(file, `It cannot be drawn again: ${notes.join("; ")}.`); return; }
      this.actions.restore(path, request, index, notes);
    } catch (problem) {
      this.offer(file, `${problem.message}.`);
    }
  }

  offer(file, why) { this.say(why, button("Edit it as a photograph", () => this.photograph(file))); }

  say(...parts) {
    $("dropped").hidden = !parts.length;
    $("dropped").replaceChildren(...parts.map((part) => (typeof part === "string" ? h("span", {}, part) : part)));
  }

  // Find the generator's picture nearest to a photograph. One that it cannot draw is refused, unless `anyway`.
  async photograph(file, anyway = false) {
    this.say();
    const address = `/api/photographs?${new URLSearchParams({ model: this.actions.model(), anyway })}`;
    try {
      const job = await this.actions.photograph(() => send(address, file));
      if (job?.problem && !anyway) this.say(`${job.problem.message}.`, button("Edit it anyway", () => this.photograph(file, true)));
    } catch (problem) {
      this.say(`${problem.message}. ${problem.hint ?? ""}`);
    }
  }
}

// The request of an energyql picture as a place of this page.
export function placeOf(path, request, index, settings, fingerprint) {
  const { query, steps = [], keep = null, edit_strength: strength = null, layers = null, n } = request;
  const known = Object.fromEntries(Object.keys(settings).filter((name) => request[name] !== undefined).map((name) => [name, request[name]]));
  // The picture is on the wall of its run.
  const count = Math.max(path === "/api/edits" ? 1 : n ?? 1, (index ?? 0) + 1);
  const edit = index === null ? null : { index, steps: path === "/api/edits" ? steps : [], options: { keep: Array.isArray(keep) ? keep : null, edit_strength: strength, layers } };
  return { query, settings: { ...settings, strength: null, purity: null, attempts: null, ...known, n: count }, fingerprint, edit };
}

