// A query box: colours, completion, and the studio's check of the text while it is being typed.

import { call } from "./api.js";
import { h } from "./dom.js";
import { toUnits } from "./language.js";
import { paint } from "./paper.js";
import { remedies } from "./remedies.js";

const CHECK_AFTER = 160; // milliseconds after the last key until the text is checked
const BLAME_AFTER = 450; // further milliseconds until a word that is still being typed is marked as wrong
const AGAIN_AFTER = 1500; // milliseconds after a failed check until the next
let boxes = 0;

// The model and settings with which a query is checked.
export const asking = ({ model, semantics, allow_weak: weak, verify = null }) => ({ model, semantics, allow_weak: weak, verify });

// The same for a step of an edit, whose pictures are never verified.
export const askingStep = (settings) => asking({ ...settings, verify: "off" });

export class QueryBox {
  // `language()` returns the words, `ask()` the fields of a check: see `asking`. `changed(check)` is called with every
  // check, and with null when the text changes, `submit()` on Enter, `allow(names)` to use weak attributes.
  constructor(root, { label, placeholder = "", language, ask, changed = () => {}, submit = () => {}, allow = null }) {
    const id = `box-${++boxes}`;
    Object.assign(this, { language, ask, changed, submit, allow, id, items: [], spans: [], active: -1, checked: null });
    this.paper = h("pre", { class: "paper", "aria-hidden": "true" });
    this.area = h("textarea", {
      id,
      rows: 1,
      class: "area",
      placeholder,
      spellcheck: "false",
      autocapitalize: "off",
      autocomplete: "off",
      role: "combobox",
      "aria-label": label,
      "aria-expanded": "false",
      "aria-autocomplete": "list",
      "aria-haspopup": "listbox",
      "aria-controls": `${id}-list`,
      "aria-describedby": `${id}-verdict`,
    });
    this.list = h("ul", { id: `${id}-list`, class: "offers", role: "listbox", "aria-label": "Completions", hidden: true });
    this.verdict = h("div", { id: `${id}-verdict`, class: "verdict", role: "status" });
    root.replaceChildren(h("div", { class: "box" }, h("div", { class: "sheet" }, this.paper, this.area), this.list), this.verdict);
    this.area.addEventListener("input", () => this.edited(true));
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.area.addEventListener("blur", () => this.close());
    this.area.addEventListener("click", () => this.close());
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the text box keeps the focus
      const item = event.target.closest("li");
      if (item) this.accept(Number(item.dataset.number));
    });
    this.paint();
  }

  get text() { return this.area.value; }

  set text(value) {
    this.area.value = value;
    this.edited(false);
  }

  focus() { this.area.focus(); }

  // Whether the last check found this text to be no query.
  get broken() { return this.checked !== null && !this.checked.ok; }

  edited(typed) {
    this.forget();
    this.paint();
    if (typed) this.offer(false);
    else this.close();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(typed), typed ? CHECK_AFTER : 0);
  }

  // Forget the last check, which is about another text.
  forget() {
    this.spans = [];
    this.checked = null;
    this.area.removeAttribute("aria-invalid");
    this.verdict.className = "verdict";
    this.verdict.replaceChildren();
    this.changed(null);
  }

  // Check the text; the response to an older text is ignored.
  async check(typed = false) {
    clearTimeout(this.timer);
    this.pending?.abort();
    this.pending = new AbortController();
    const query = this.text;
    if (!query.trim()) {
      this.tell({ ok: false, problem: null });
      return;
    }
    try {
      const found = await call("POST", "api/check", { query, ...this.ask() }, this.pending.signal);
      if (query !== this.text) return;
      if (typed && found.problem && !this.list.hidden) this.timer = setTimeout(() => this.tell(found), BLAME_AFTER);
      else this.tell(found);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.tell({ ok: false, problem });
      this.checked = null; // the text was not checked
      this.timer = setTimeout(() => this.check(), AGAIN_AFTER);
    }
  }

  // Show a problem in the text that it is about; false if the box has another text, or the problem has no place in it.
  refuse(text, problem) {
    if (text !== this.text || !problem.spans?.length) return false;
    clearTimeout(this.timer);
    this.pending?.abort();
    this.tell({ ok: false, problem });
    this.focus();
    return true;
  }

  tell(check) {
    this.checked = check;
    const { problem, warnings = [] } = check;
    this.spans = toUnits(this.text, (problem ? [problem] : warnings).flatMap(({ spans }) => spans || []));
    this.area.setAttribute("aria-invalid", String(Boolean(problem)));
    this.paper.classList.toggle("odd", !problem);
    this.verdict.className = `verdict ${problem ? "bad" : warnings.length ? "odd" : check.ok ? "good" : ""}`;
    const words = this.words(check);
    this.verdict.replaceChildren(...(words.length ? [h("div", {}, words)] : []));
    this.paint();
    this.changed(check);
  }

  words({ ok, problem, warnings = [], canonical }) {
    if (problem) {
      const found = remedies(problem, this.text, this.language());
      return [h("strong", {}, sentence(problem.message)), ...this.remedy(problem, found)];
    }
    if (warnings.length) return warnings.map(({ message, hint }) => h("p", {}, sentence(message), " ", hint ? sentence(hint) : null));
    if (ok && canonical !== this.text.trim()) return [h("span", {}, "Read as "), h("code", {}, canonical)];
    return ok ? [h("span", {}, "A valid query.")] : [];
  }

  // Remedies of a problem: words to replace, weak attributes to allow, or advice.
  remedy({ hint }, { words, weak }) {
    if (words.length) {
      const chips = words.map(({ text, range: [start, end] }) => h("button", { type: "button", class: "chip", onclick: () => this.correct(start, end, text) }, text));
      return [h("span", { class: "remedy" }, "Did you mean ", chips, "?")];
    }
    if (weak.length && this.allow) {
      const use = () => { this.allow(weak); this.check(); this.focus(); };
      return [h("span", { class: "remedy" }, "Its pictures may not show what you ask for. ", h("button", { type: "button", class: "chip", onclick: use }, `Use ${weak.join(" and ")} anyway`))];
    }
    return [hint && !weak.length ? h("span", {}, sentence(hint)) : null];
  }

  correct(start, end, text) {
    this.replace(start, end, text);
    this.close();
    this.check();
  }

  // The text in colours, with carets under the wrong parts.
  paint() {
    this.cursor = paint(this.paper, this.language().tokens(this.text), this.text, this.area.selectionStart, this.spans);
  }

  offer(asked) {
    const found = this.language().suggest(this.text, this.area.selectionStart, asked);
    if (!found || this.area.selectionStart !== this.area.selectionEnd) { this.close(); return; }
    this.range = [found.start, found.end];
    this.items = found.items;
    this.active = -1;
    this.list.replaceChildren(...found.items.map(({ label, note }, number) => h(
      "li",
      { id: `${this.id}-${number}`, role: "option", "aria-selected": "false", dataset: { number } },
      h("code", {}, label),
      note ? h("span", {}, note) : null,
    )));
    this.list.hidden = false;
    this.area.setAttribute("aria-expanded", "true");
    this.paint();
    const wide = this.list.parentElement.clientWidth;
    const { offsetLeft, offsetHeight } = this.cursor;
    const offsetTop = this.cursor.offsetTop - this.paper.parentElement.scrollTop;
    this.list.style.left = `${Math.max(0, Math.min(offsetLeft - 12, wide - this.list.offsetWidth - 8))}px`;
    this.list.style.top = `${offsetTop + offsetHeight + 4}px`;
    this.select(-1);
  }

  close() {
    this.list.hidden = true;
    this.active = -1;
    this.area.setAttribute("aria-expanded", "false");
    this.area.removeAttribute("aria-activedescendant");
  }

  select(number) {
    this.active = number;
    [...this.list.children].forEach((item, place) => item.setAttribute("aria-selected", String(place === number)));
    if (number < 0) { this.area.removeAttribute("aria-activedescendant"); return; }
    this.area.setAttribute("aria-activedescendant", `${this.id}-${number}`);
    this.list.children[number].scrollIntoView({ block: "nearest" });
  }

  accept(number) {
    const [start, end] = this.range;
    this.replace(start, end, this.items[number].insert);
    this.offer(false); // such as the values of an attribute
  }

  // Insert the text as if it were typed, so that the browser's undo removes it.
  replace(start, end, text) {
    this.area.focus();
    this.area.setSelectionRange(start, end);
    if (!document.execCommand("insertText", false, text)) {
      this.area.setRangeText(text, start, end, "end");
      this.edited(true);
    }
  }

  key(event) {
    const { key } = event;
    const open = !this.list.hidden;
    if (event.isComposing) return;
    if (open && (key === "ArrowDown" || key === "ArrowUp")) {
      const count = this.items.length;
      const next = key === "ArrowDown" ? this.active + 1 : this.active - 1;
      this.select(next < 0 ? count - 1 : next % count);
    } else if (open && key === "Tab" && !event.shiftKey) {
      this.accept(Math.max(this.active, 0));
    } else if (open && key === "Enter" && this.active >= 0) {
      this.accept(this.active);
    } else if (open && key === "Escape") {
      this.close();
      event.stopPropagation();
    } else if (key === " " && event.ctrlKey) {
      this.offer(true);
    } else if (key === "Enter" && !event.shiftKey && !event.altKey) {
      this.close();
      this.submit();
    } else {
      return;
    }
    event.preventDefault();
  }
}

export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.?!`)]$/.test(text) ? "" : "."}`;
}

