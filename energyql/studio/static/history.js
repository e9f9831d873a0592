// The list of runs, of this visit and of earlier ones.

import { $, button, h, plural } from "./dom.js";
import { Language } from "./language.js";
import { code } from "./paper.js";
import { likeness } from "./report.js";

const time = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const plain = new Language([], []); // for runs of a model that the studio may not have any more

// `actions`: show(place), forget().
export function showHistory(store, actions) {
  let known = [];
  store.on(["past", "run"], ({ past, run }) => {
    if (known[0] === past && known[1] === run?.key) return; // so that the focus stays while pictures arrive
    known = [past, run?.key];
    const items = past.map((entry) => h("li", {}, h(
      "button",
      { type: "button", "aria-current": entry.key === run?.key ? "true" : undefined, onclick: () => actions.show({ ...entry, edit: null }) },
      h("span", { class: "thumbs" }, entry.thumbs.map((source) => h("img", { src: source, alt: "", width: 36, height: 36 }))),
      entry.photo ? h("strong", {}, "Your photograph") : code(entry.query, run?.language ?? plain),
      h("span", { class: "faint" }, facts(entry)),
    )));
    $("history").replaceChildren(...(items.length ? items : [h("li", { class: "faint" }, "What you draw is listed here, also at your next visit.")]));
    if (items.length) $("history").append(h("li", {}, button("Forget all", actions.forget)));
  });
}

function facts({ when, settings, edits, vary }) {
  const date = new Date(when);
  const today = date.toDateString() === new Date().toDateString();
  const at = today ? time.format(date) : day.format(date);
  return [at, settings.model, vary ? likeness(vary) : "", `${settings.n} of seed ${settings.seed}`, edits.length ? `${plural(edits.length, "picture")} edited` : ""].filter(Boolean).join(" · ");
}
