/** The form: what to make of the pictures, within what the chosen model allows. */

import { h, one, say } from "./dom.js";

const NUMBERS = ["strength", "num_inference_steps", "guidance_scale", "seed", "width", "height"];
const NAMES = ["prompt", "negative_prompt", ...NUMBERS, "sampler", "output_format"];
const LABELS = { num_inference_steps: "Steps", guidance_scale: "Guidance", strength: "Strength", width: "Width", height: "Height" };
const MAX_SEED = 2n ** 63n - 1n;
const STATES = { ready: "ready", starting: "starting", idle: "starts with the first picture", broken: "can't be used now" };

export class Form {
  #form = one("#form");
  #model = one("#model");
  #models = [];
  #touched = new Set();
  #told = "";

  constructor({ submit, pictures }) {
    this.pictures = pictures;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#check()) submit(pictures.chosen, this.values(), this.#copies());
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.repeat) return;
      if (!one("dialog[open]") && !one("#pictures").hidden) this.#form.requestSubmit();
    });
    this.#model.addEventListener("change", () => this.#turn());
    this.#form.addEventListener("input", ({ target }) => this.#typed(target));
  }

  get model() {
    return this.#models.find((model) => model.name === this.#model.value);
  }

  /** The models as the service has them now. */
  show(models) {
    const told = JSON.stringify(models.map(({ name, rules, words }) => [name, rules, words]));
    const chosen = this.#model.value;
    this.#models = models;
    if (told !== this.#told) {
      this.#told = told;
      this.#model.replaceChildren(...models.map(({ name }) => h("option", { value: name }, name)));
      const usable = models.find((model) => model.state !== "broken") ?? models[0];
      if (usable) this.#model.value = models.some(({ name }) => name === chosen) ? chosen : usable.name;
      this.#turn();
    }
    this.#tell();
  }

  /** What the caller asked for; what is as the model has it anyway is left out. */
  values() {
    const values = { model_name: this.#model.value };
    const rules = this.model?.rules ?? {};
    for (const name of NAMES) {
      const value = this.#field(name).value.trim();
      const usual = String({ prompt: "", negative_prompt: "" }[name] ?? rules[name] ?? "");
      if (value !== "" && value !== usual) values[name] = value;
    }
    const priority = one("input[name=priority]:checked").value;
    if (priority !== "normal") values.priority = priority;
    return values;
  }

  /** Take over what was asked for a job. */
  fill(job) {
    if (!job?.params) return;
    if (this.#models.some(({ name }) => name === job.model_name)) this.#model.value = job.model_name;
    this.#touched.clear();
    this.#turn();
    const { exact, width, height, ...params } = job.params;
    for (const [name, value] of Object.entries({ prompt: job.prompt, ...params, ...(exact ? { width, height } : {}) })) {
      if (!NAMES.includes(name)) continue;
      this.#field(name).value = value;
      this.#touched.add(name);
    }
    one(`input[name=priority][value=${job.priority ?? "normal"}]`).checked = true;
    this.#typed(one("#prompt"));
    this.#outputs();
    one("#prompt").focus();
  }

  /** Say what the service would not have next to what caused it. */
  refuse(problem) {
    if (["unsupported-picture", "animated-picture", "too-many-pixels", "body-too-large"].includes(problem.slug)) {
      return this.pictures.refuse(problem.detail);
    }
    const name = problem.slug === "invalid-parameters" && NAMES.find((each) => problem.detail.startsWith(each));
    this.#wrong(name || "form", problem.detail);
  }

  /** Nothing that was wrong is any more. */
  forgive() {
    this.#wrong("form", "");
  }

  /** How many pictures the button would make. */
  count() {
    const pictures = this.pictures.chosen.length * this.#copies();
    say(one("#submit-text"), pictures > 1 ? `Make ${pictures} pictures` : "Make the picture");
  }

  #field(name) {
    return one(`#${name}`);
  }

  #copies() {
    return Math.min(16, Math.max(1, Math.trunc(Number(one("#copies").value)) || 1));
  }

  /** Another model: its ranges and, where nothing was chosen by hand, its defaults. */
  #turn() {
    const rules = this.model?.rules ?? {};
    const limits = { num_inference_steps: [1, rules.max_steps], guidance_scale: [0, rules.max_guidance_scale] };
    for (const [name, [least, most]] of Object.entries(limits)) {
      Object.assign(this.#field(name), { min: least, max: most ?? "" });
    }
    for (const name of ["width", "height"]) Object.assign(this.#field(name), { min: rules.size_multiple, step: rules.size_multiple });
    const [samplers, sampler] = [rules.samplers ?? [], one("#sampler").value];
    one("#sampler").replaceChildren(...samplers.map((name) => h("option", { value: name }, name)));
    if (samplers.includes(sampler)) one("#sampler").value = sampler;
    else this.#touched.delete("sampler");
    for (const name of ["strength", "num_inference_steps", "guidance_scale", "sampler", "output_format"]) {
      if (!this.#touched.has(name) && rules[name] !== undefined) this.#field(name).value = rules[name];
    }
    one("#prompt").maxLength = rules.max_prompt_chars ?? 4000;
    const { styles = [], moods = [] } = this.model?.words ?? {};
    this.#chips("#styles", styles);
    this.#chips("#moods", moods);
    this.#outputs();
    this.#tell();
  }

  #tell() {
    const model = this.model;
    say(one("#model-state"), model ? (STATES[model.state] ?? model.state) : "");
    one("#model-state").dataset.state = model?.state ?? "";
    // What a model knows stands above as words to choose from, where it says so.
    const known = Object.values(model?.words ?? {}).flat().length > 0;
    say(one("#model-summary"), model?.trouble ?? (known ? "" : model?.summary) ?? "");
  }

  #chips(place, words) {
    const chip = (word) => h("button", { type: "button", class: "chip", data: { word }, onclick: () => this.#toggle(word) }, word);
    one(`${place} .chips`).replaceChildren(...words.map(chip));
    one(place).hidden = !words.length;
    this.#press();
  }

  #toggle(word) {
    const prompt = one("#prompt");
    const parts = prompt.value.split(",").map((part) => part.trim()).filter(Boolean);
    const without = parts.filter((part) => part.toLowerCase() !== word);
    prompt.value = (without.length < parts.length ? without : [...parts, word]).join(", ");
    this.#typed(prompt);
  }

  #press() {
    const said = one("#prompt").value.toLowerCase().split(",").map((part) => part.trim());
    for (const chip of this.#form.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", String(said.includes(chip.dataset.word)));
  }

  #typed(target) {
    this.#touched.add(target.id);
    if (one(`#${target.id}-error`)) this.#wrong(target.id, "");
    this.#wrong("form", "");
    if (target.id === "prompt") this.#press();
    if (target.id === "copies") this.count();
    this.#outputs();
  }

  #outputs() {
    say(one("#strength-value"), Number(one("#strength").value).toFixed(2));
  }

  /** Whether all can be sent; what can't is said beside it, and the first of it is gone to. */
  #check() {
    const faults = {};
    for (const name of NUMBERS.filter((each) => each !== "seed")) {
      const fault = this.#fault(this.#field(name), LABELS[name]);
      if (fault) faults[name] = fault;
    }
    const seed = one("#seed").value.trim();
    if (seed && !(/^\d{1,19}$/.test(seed) && BigInt(seed) <= MAX_SEED)) faults.seed = `Seed is a whole number from 0 to ${MAX_SEED}, or empty.`;
    if (!one("#width").value !== !one("#height").value) faults.width ??= "Give both width and height, or neither.";
    if (!this.model) faults.form = "There is no model yet; the service has none, or did not answer.";
    for (const name of [...NUMBERS, "form"]) this.#wrong(name, faults[name] ?? "");
    if (!this.pictures.chosen.length) {
      this.pictures.refuse("Choose a picture first: drop one here, paste it, or take a sample.");
      one("#file").focus();
      return false;
    }
    const [first] = Object.keys(faults);
    if (first && first !== "form") {
      const field = this.#field(first);
      field.closest("details")?.setAttribute("open", "");
      field.focus();
    }
    return !first;
  }

  #fault(field, label) {
    const { validity, min, max, step } = field;
    if (validity.badInput) return `${label} is a number.`;
    if (validity.rangeUnderflow || validity.rangeOverflow) return `${label} is ${max ? `${min} to ${max}` : `at least ${min}`}.`;
    if (validity.stepMismatch) return `${label} is a multiple of ${step}.`;
    return "";
  }

  #wrong(name, text) {
    say(one(`#${name}-error`), text);
    const field = this.#field(name);
    if (name !== "form") field.setAttribute("aria-invalid", String(Boolean(text)));
  }
}
