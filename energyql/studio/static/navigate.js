// The addresses of the page: each drawing, each picture and each step is one, so that Back and reload work.

import { decode, encode } from "./share.js";

const LATER = 250; // milliseconds without a key, after which a draft is kept
const LAST = "energyql-draft";

export class Navigation {
  // `restore(place, state)` shows a place; `state` has `draft`, what was typed there and not drawn, and `depth`.
  constructor(restore, draft) {
    this.draft = draft;
    window.addEventListener("popstate", ({ state }) => {
      clearTimeout(this.timer);
      this.waiting = false;
      restore(decode(location.hash), state ?? {});
    });
    window.addEventListener("pagehide", () => this.leavePage());
  }

  // The place of the address, with its state.
  get here() { return { place: decode(location.hash), state: history.state ?? {} }; }

  // The same at the start of the page: what was typed in the last moment before a reload counts.
  arrive() {
    const { place, state } = this.here;
    try {
      const kept = JSON.parse(sessionStorage.getItem(LAST));
      sessionStorage.removeItem(LAST);
      if (kept?.href === location.href) return { place, state: { ...state, draft: kept.draft } };
    } catch { /* no storage here */ }
    return { place, state };
  }

  // The browser takes no more changes of the address while a page is left.
  leavePage() {
    try { sessionStorage.setItem(LAST, JSON.stringify({ href: location.href, draft: this.draft() })); } catch { /* not kept */ }
  }

  // Steps since the wall was left: closing a picture goes back as many.
  get depth() { return history.state?.depth ?? 0; }

  push(place, depth = 0) {
    if (this.waiting) this.keepDraft(); // what was typed belongs to the address that is left
    history.pushState({ depth }, "", encode(place));
  }

  replace(place) { history.replaceState({ depth: this.depth }, "", encode(place)); }

  // Back to the wall, or on to it where a link led straight to a picture.
  leave(place) {
    if (this.depth) history.go(-this.depth);
    else this.push(place);
    return this.depth === 0;
  }

  typed() {
    clearTimeout(this.timer);
    this.waiting = true;
    this.timer = setTimeout(() => this.keepDraft(), LATER);
  }

  keepDraft() {
    clearTimeout(this.timer);
    this.waiting = false;
    history.replaceState({ ...history.state, draft: this.draft() }, "");
  }

  dropDraft() {
    clearTimeout(this.timer);
    this.waiting = false;
    history.replaceState({ depth: this.depth }, "");
  }
}
