// The settings of a request: the form, what it holds, and the part of a link that restores it.

import { $, h } from "./dom.js";

const DEFAULT_N = 16;

export class SettingsForm {
  constructor(info, changed) {
    this.info = info;
    const options = (names) => names.map((name) => h("option", { value: name }, name));
    $("model").replaceChildren(...options(info.models.map((model) => model.name)));
    $("sampler").replaceChildren(...options(info.samplers));
    $("semantics").replaceChildren(...options(info.semantics));
    $("n").max = info.limits.pictures;
    $("n").value = Math.min(DEFAULT_N, info.limits.pictures);
    $("seed").value = 0;
    $("form").addEventListener("submit", (event) => event.preventDefault());
    $("form").addEventListener("input", (event) => { this.show(); changed(event.target.id); });
    $("dice").addEventListener("click", () => {
      $("seed").value = Math.floor(Math.random() * 1_000_000);
      this.show();
      changed("seed");
    });
    $("model").addEventListener("change", () => { this.fit(); this.show(); });
    this.fit();
    this.show();
  }

  get model() { return this.info.models.find((model) => model.name === $("model").value); }

  get valid() { return $("form").checkValidity(); }

  // Where it is not, the browser says which field and why.
  complain() {
    $("settings").open = true;
    $("form").reportValidity();
  }

  // Truncation is a choice only where the attributes hold for several.
  fit() {
    const { truncation, truncation_low: low, truncation_high: high } = this.model;
    Object.assign($("truncation"), { min: low, max: high, hidden: low === high });
    $("truncation").value = truncation;
  }

  read() {
    const { truncation, truncation_low: low, truncation_high: high } = this.model;
    return {
      model: this.model.name,
      semantics: $("semantics").value,
      sampler: $("sampler").value,
      strength: $("strength").value === "" ? null : Number($("strength").value),
      truncation: low === high ? truncation : Number($("truncation").value),
      seed: Number($("seed").value),
      n: Number($("n").value),
    };
  }

  // Fields that are missing, or that this studio does not offer, stay as they are; but no strength means the sampler's
  // own, and a number that is out of range becomes the next one that is not. Returns what could not be restored.
  write(settings) {
    const lost = [];
    for (const name of ["model", "semantics", "sampler"]) {
      if (settings[name] === undefined) continue;
      if ([...$(name).options].some((option) => option.value === settings[name])) $(name).value = settings[name];
      else lost.push(`${name} ${settings[name]}`);
    }
    this.fit();
    $("strength").value = settings.strength > 0 ? settings.strength : "";
    if (settings.strength <= 0) lost.push(`strength ${settings.strength}`);
    for (const name of ["truncation", "seed", "n"]) {
      if (settings[name] === undefined) continue;
      const { min, max, step } = $(name);
      const value = Math.min(Number(max), Math.max(Number(min), step === "1" ? Math.round(settings[name]) : settings[name]));
      if (value !== settings[name]) lost.push(`${name} ${settings[name]}`);
      $(name).value = value;
    }
    this.show();
    return lost;
  }

  show() {
    const { sampler, semantics, seed, n, truncation, strength } = this.read();
    const { truncation_low: low, truncation_high: high } = this.model;
    $("psi").textContent = low === high ? `${truncation}, fixed by this model` : truncation.toFixed(2);
    $("settings-summary").textContent = [
      this.info.models.length > 1 ? this.model.name : "",
      `seed ${seed}`,
      sampler,
      semantics,
      strength === null ? "" : `strength ${strength}`,
    ].filter(Boolean).join(" · ");
    $("draw-count").textContent = n;
  }
}
