// The settings of a drawing: the form, its values, and the part of a link that restores them.

import { $, h } from "./dom.js";

const DEFAULT_N = 16;
const MODES = ["sure", "faithful", "off"]; // ways to verify pictures

const filled = (id) => ($(id).value === "" ? null : Number($(id).value));

export class SettingsForm {
  // `changed(id)` is called with the id of the field that the visitor has changed.
  constructor(info, changed) {
    this.info = info;
    this.weak = []; // attributes that are used although their heads are weak
    this.changed = changed;
    const options = (names) => names.map((name) => h("option", { value: name }, name));
    $("model").replaceChildren(...options(info.models.map((model) => model.name)));
    $("model").parentElement.hidden = info.models.length < 2;
    $("sampler").replaceChildren(...options(info.samplers));
    $("semantics").replaceChildren(...options(info.semantics));
    $("n").max = info.limits.pictures;
    $("n").value = Math.min(DEFAULT_N, info.limits.pictures);
    $("seed").value = 0;
    $("form").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("input", ({ target }) => {
      if (target.form?.id !== "form") return;
      if (target.id === "model") this.fit();
      this.show();
      changed(target.id);
    });
    this.fit();
    this.show();
  }

  get model() { return this.info.models.find((model) => model.name === $("model").value); }

  get valid() { return $("form").checkValidity(); }

  // If the form is not valid, the browser shows which field and why.
  complain() { $("form").reportValidity(); }

  anotherSeed() {
    $("seed").value = Math.floor(Math.random() * 1_000_000);
    this.show();
    this.changed("seed");
  }

  allow(names) {
    this.weak = [...new Set([...this.weak, ...names])];
    this.show();
    this.changed("weak");
  }

  // Truncation can be chosen only if the attributes were learned for a range of it.
  fit() {
    const { truncation, truncation_low: low, truncation_high: high, attributes } = this.model;
    Object.assign($("truncation"), { min: low, max: high, hidden: low === high });
    $("truncation").value = truncation;
    this.weak = this.weak.filter((name) => attributes.some((attribute) => attribute.name === name && attribute.weak));
    const chosen = $("verify").value;
    $("verify").replaceChildren(h("option", { value: "" }, `default: ${this.model.verify}`), ...MODES.map((mode) => h("option", { value: mode }, mode)));
    $("verify").value = this.verifiable ? chosen : "";
  }

  // Whether the model has a reader of pictures, which can decide which of them are kept.
  get verifiable() { return Boolean(this.model.judge) || this.model.verify !== "off"; }

  // Whether a reader decides, unless it cannot read the query.
  get verified() { return ($("verify").value || this.model.verify) !== "off"; }

  read() {
    const { truncation, truncation_low: low, truncation_high: high } = this.model;
    return {
      model: this.model.name,
      semantics: $("semantics").value,
      sampler: $("sampler").value,
      strength: filled("strength"),
      truncation: low === high ? truncation : Number($("truncation").value),
      seed: Number($("seed").value),
      n: Number($("n").value),
      allow_weak: this.weak,
      verify: $("verify").value || null,
      purity: this.verified ? filled("purity") : null,
      attempts: this.verified ? filled("attempts") : null,
    };
  }

  // Fields that are missing, or that this studio does not offer, stay as they are; without a strength it is the sampler's
  // default, without fields about verified pictures their defaults, and a number out of range becomes the nearest one in
  // it. Returns what could not be restored.
  write(settings) {
    const lost = [];
    for (const name of ["model", "semantics", "sampler"]) {
      if (settings[name] === undefined) continue;
      if ([...$(name).options].some((option) => option.value === settings[name])) $(name).value = settings[name];
      else lost.push(`${name} ${settings[name]}`);
    }
    this.weak = settings.allow_weak ?? [];
    this.fit();
    $("strength").value = settings.strength > 0 ? settings.strength : "";
    if (settings.strength <= 0) lost.push(`strength ${settings.strength}`);
    const { verify } = settings;
    const offered = MODES.includes(verify) && (this.verifiable || verify === "off");
    if (verify && !offered) lost.push(`verify ${verify}`);
    $("verify").value = offered && verify !== this.model.verify ? verify : "";
    for (const name of ["purity", "attempts"]) $(name).value = "";
    for (const name of ["truncation", "seed", "n", "purity", "attempts"]) {
      if (settings[name] === undefined || settings[name] === null) continue;
      const { min, max, step } = $(name);
      const value = Math.min(Number(max), Math.max(Number(min), step === "1" ? Math.round(settings[name]) : settings[name]));
      if (value !== settings[name]) lost.push(`${name} ${settings[name]}`);
      $(name).value = value;
    }
    this.show();
    return lost;
  }

  show() {
    const { n, truncation } = this.read();
    const { truncation_low: low, truncation_high: high } = this.model;
    $("psi").textContent = low === high ? `${truncation}, fixed by this model` : truncation.toFixed(2);
    $("draw-count").textContent = n || "";
    $("verified").hidden = !this.verifiable;
    for (const name of ["purity", "attempts"]) $(name).parentElement.hidden = !this.verified;
    $("weak-field").hidden = !this.weak.length;
    $("weak").replaceChildren(...this.weak.map((name) => h("button", {
      type: "button",
      class: "chip",
      title: "Do not use it any more",
      onclick: () => { this.weak = this.weak.filter((other) => other !== name); this.show(); this.changed("weak"); },
    }, `${name} ×`)));
  }
}
