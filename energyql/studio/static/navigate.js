// The addresses of the page: each drawing, picture and step has one, so that Back and reload work.

import { decode, encode } from "./share.js";

const LATER = 250; // milliseconds after the last key until a draft is stored
const LAST = "energyql-draft";

export class Navigation {
  // `restore(place, state)` shows a place; `state` has `draft`, the text that was typed and not drawn, and `depth`.
  constructor(restore, draft) {
    this.draft = draft;
    window.addEventListener("popstate", ({ state }) => {
      clearTimeout(this.timer);
      this.waiting = false;
      restore(decode(location.hash), state ?? {});
    });
    window.addEventListener("pagehide", () => this.leavePage());
  }

  // The place in the address, with its state.
  get here() { return { place: decode(location.hash), state: history.state ?? {} }; }

  // The same when the page is loaded; the draft is the text that was typed last before a reload.
  arrive() {
    const { place, state } = this.here;
    try {
      const kept = JSON.parse(sessionStorage.getItem(LAST));
      sessionStorage.removeItem(LAST);
      if (kept?.href === location.href) return { place, state: { ...state, draft: kept.draft } };
    } catch { /* no storage here */ }
    return { place, state };
  }

  // While a page is left, the browser allows no change of the address, so the draft is stored.
  leavePage() {
    try { sessionStorage.setItem(LAST, JSON.stringify({ href: location.href, draft: this.draft() })); } catch { /* not kept */ }
  }

  // Number of addresses since the wall: closing a picture goes back as many.
  get depth() { return history.state?.depth ?? 0; }

  push(place, depth = 0) {
    if (this.waiting) this.keepDraft(); // the draft belongs to the address that is left
    history.pushState({ depth }, "", encode(place));
  }

  replace(place) { history.replaceState({ depth: this.depth }, "", encode(place)); }

  // Go back to the wall; if a link led straight to a picture, add an address for it. Returns whether it was added.
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
