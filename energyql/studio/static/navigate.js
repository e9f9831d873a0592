// The addresses of the page: each drawing, each picture and each step is one, so that Back and reload work.

import { decode, encode } from "./share.js";

const LATER = 250; // milliseconds without a key, after which a draft is kept

export class Navigation {
  // `restore(place, state)` shows a place; `state` has `draft`, what was typed there and not drawn, and `depth`.
  constructor(restore, draft) {
    this.draft = draft;
    window.addEventListener("popstate", ({ state }) => {
      clearTimeout(this.timer);
      restore(decode(location.hash), state ?? {});
    });
    window.addEventListener("pagehide", () => this.keepDraft());
  }

  get here() { return { place: decode(location.hash), state: history.state ?? {} }; }

  // Steps since the wall was left: closing a picture goes back as many.
  get depth() { return history.state?.depth ?? 0; }

  push(place, depth = 0) { history.pushState({ depth }, "", encode(place)); }

  replace(place) { history.replaceState({ depth: this.depth }, "", encode(place)); }

  // Back to the wall, or on to it where a link led straight to a picture.
  leave(place) {
    if (this.depth) history.go(-this.depth);
    else this.push(place);
    return this.depth === 0;
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keepDraft(), LATER);
  }

  keepDraft() {
    clearTimeout(this.timer);
    history.replaceState({ ...history.state, draft: this.draft() }, "");
  }

  dropDraft() {
    clearTimeout(this.timer);
    history.replaceState({ depth: this.depth }, "");
  }
}
