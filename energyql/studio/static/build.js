// Building a query by pointing: yes or no, classes to choose from, and ranges between two sliders.

import { $, h } from "./dom.js";
import { amend, condition, wanted } from "./conjunction.js";

const STEPS = 50; // number of steps of a slider

export class Builder {
  // `box` is the query box to change, `language()` returns the attributes.
  constructor(box, language) {
    Object.assign(this, { box, language, rows: [] });
  }

  // Make the rows for the attributes of a model.
  fill() {
    this.rows = this.language().attributes.map((attribute) => this.row(attribute));
    $("attributes").replaceChildren(...this.rows.map(({ node }) => node));
    this.show();
  }

  // Show the conditions in the text of the box.
  show() {
    for (const { attribute, show } of this.rows) show(wanted(this.box.text, this.language(), attribute.name));
  }

  ask(attribute, value) {
    this.box.text = amend(this.box.text, this.language(), attribute.name, condition(attribute, value));
  }

  row(attribute) {
    const { name, written, kind, description, weak } = attribute;
    const { node, show } = { "yes/no": () => this.choice(attribute), categorical: () => this.classes(attribute), continuous: () => this.range(attribute) }[kind]();
    const note = [weak ? `weak: ${weak}` : "", description].filter(Boolean).join(". ");
    const head = h("span", { class: "word" }, h("code", { class: weak ? "weak" : "" }, written), note ? h("span", { class: "faint" }, note) : null);
    return { attribute, show, node: h("div", { class: "ask-row", role: "group", "aria-label": name }, head, node) };
  }

  toggle(text, label, action) {
    return h("button", { type: "button", class: "chip", "aria-pressed": "false", "aria-label": label, onclick: action }, text);
  }

  choice(attribute) {
    let now = null;
    const press = (value) => this.ask(attribute, now === value ? null : value);
    const yes = this.toggle("yes", `${attribute.name}: yes`, () => press(true));
    const no = this.toggle("no", `${attribute.name}: no`, () => press(false));
    const show = (value) => {
      now = value;
      yes.setAttribute("aria-pressed", String(value === true));
      no.setAttribute("aria-pressed", String(value === false));
    };
    return { node: h("span", { class: "chips" }, yes, no), show };
  }

  classes(attribute) {
    let now = [];
    const press = (value) => this.ask(attribute, now.includes(value) ? now.filter((other) => other !== value) : attribute.values.filter((other) => other === value || now.includes(other)));
    const chips = attribute.values.map((value) => this.toggle(value, `${attribute.name}: ${value}`, () => press(value)));
    const show = (value) => {
      now = value ?? [];
      chips.forEach((chip, place) => chip.setAttribute("aria-pressed", String(now.includes(attribute.values[place]))));
    };
    return { node: h("span", { class: "chips" }, chips), show };
  }

  range(attribute) {
    const { name, low, high } = attribute;
    const slider = (label) => h("input", { type: "range", min: low, max: high, step: (high - low) / STEPS, "aria-label": `${name}: ${label}`, oninput: (event) => moved(event.target) });
    const from = slider("at least");
    const to = slider("at most");
    const said = h("output", { class: "count" });
    const moved = (moving) => {
      // A slider pushes the other one along.
      if (Number(from.value) > Number(to.value)) (moving === from ? to : from).value = moving.value;
      this.ask(attribute, [Number(from.value), Number(to.value)]);
    };
    const show = (value) => {
      const [least, most] = [value?.[0] ?? low, value?.[1] ?? high];
      // A query may have a number between two steps: the focused slider does not jump to it.
      if (document.activeElement !== from) from.value = least;
      if (document.activeElement !== to) to.value = most;
      said.textContent = value ? `${Number(least).toFixed(2)} to ${Number(most).toFixed(2)}` : "any";
    };
    return { node: h("span", { class: "between" }, from, to, said), show };
  }
}
