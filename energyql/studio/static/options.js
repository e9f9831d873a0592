// The options of an edit: attributes to keep, strength, and layers.

import { h } from "./dom.js";
import { readLayers } from "./share.js";

export class EditOptions {
  // `changed(options)` is called when the visitor has changed one.
  constructor(changed) {
    this.changed = changed;
    this.all = h("input", { type: "checkbox", onchange: () => this.tell() });
    this.names = h("span", { class: "chips", role: "group", "aria-label": "Attributes to keep" });
    this.strength = h("input", { type: "number", min: 0.1, step: "any", placeholder: "30", inputmode: "decimal", onchange: () => this.tell() });
    this.layers = h("input", { type: "text", placeholder: "all, or 0 2-5", autocomplete: "off", onchange: () => this.tell() });
    this.node = h(
      "details",
      { class: "options" },
      h("summary", {}, "How to edit"),
      h("div", { class: "fields" },
        h("label", { class: "two tick" }, this.all, h("span", {}, "Keep everything else")),
        h("div", { class: "two" }, this.names),
        h("label", {}, h("span", {}, "Strength"), this.strength),
        h("label", {}, h("span", {}, "Layers that may change"), this.layers)),
    );
  }

  fill(attributes, { keep, edit_strength: strength, layers }) {
    this.kept = new Set(keep ?? attributes.map(({ name }) => name));
    this.all.checked = keep === null;
    this.strength.value = strength ?? "";
    this.layers.value = layers?.join(" ") ?? "";
    this.names.replaceChildren(...attributes.map(({ name }) => h("button", {
      type: "button", class: "chip", "aria-pressed": String(this.kept.has(name)), onclick: ({ target }) => this.toggle(name, target),
    }, name)));
    this.show();
  }

  toggle(name, chip) {
    if (!this.kept.delete(name)) this.kept.add(name);
    chip.setAttribute("aria-pressed", String(this.kept.has(name)));
    this.tell();
  }

  show() { this.names.hidden = this.all.checked; }

  get value() {
    const strength = Number(this.strength.value);
    return { keep: this.all.checked ? null : [...this.kept], edit_strength: strength > 0 ? strength : null, layers: readLayers(this.layers.value) };
  }

  tell() {
    this.show();
    this.changed(this.value);
  }
}
