/** The service itself: its models, their workers and queues, as they are this moment. */

import { status } from "./api.js";
import { h, one, say } from "./dom.js";
import { ago, duration } from "./words.js";

const EVERY_MS = 2_000;
const KEPT = 90;
const NS = "http://www.w3.org/2000/svg";

export class Service {
  #view = one("#service");
  #cards = new Map();
  #timer = 0;
  #told;

  /** `told(status)` each time that the service was asked. */
  constructor(told) {
    this.#told = told;
    document.addEventListener("visibilitychange", () => this.#turn());
  }

  show(seen) {
    this.#view.hidden = !seen;
    this.#turn();
  }

  #turn() {
    clearTimeout(this.#timer);
    if (!this.#view.hidden && !document.hidden) this.#look();
  }

  async #look() {
    clearTimeout(this.#timer);
    try {
      this.#draw(await status());
    } catch (problem) {
      say(one("#service-state"), problem.detail);
      one("#service-state").dataset.state = "broken";
    }
    if (!this.#view.hidden && !document.hidden) this.#timer = setTimeout(() => this.#look(), EVERY_MS);
  }

  #draw(told) {
    this.#told(told);
    const troubles = Object.entries(told.stores).filter(([, state]) => state !== "ok");
    const said = troubles.map(([name, trouble]) => `${name}: ${trouble}`).join(" ");
    say(one("#service-state"), said || "All stores answer.");
    one("#service-state").dataset.state = said ? "broken" : "ready";
    say(one("#service-version"), `Sfumato ${told.version}, this gateway started ${ago(told.started_at)}`);
    const names = new Set(told.models.map((model) => model.name));
    for (const [name, card] of this.#cards) {
      if (!names.has(name)) {
        card.element.remove();
        this.#cards.delete(name);
      }
    }
    for (const model of told.models) {
      if (!this.#cards.has(model.name)) {
        const card = new ModelCard(model.name);
        this.#cards.set(model.name, card);
        one("#service-models").append(card.element);
      }
      this.#cards.get(model.name).draw(model);
    }
  }
}

/** One model: its numbers, and how its queue went while one looked. */
class ModelCard {
  #seen = [];
  #numbers = {};
  #state = h("span", { class: "state" });
  #about = h("p", { class: "summary" });
  #line = document.createElementNS(NS, "polyline");
  #most = h("span", { class: "most" });
  element;

  constructor(name) {
    const facts = ["Workers", "Running", "Waiting", "Oldest waits", "Done in"].map((label) => {
      this.#numbers[label] = h("dd", {}, "–");
      return h("div", {}, h("dt", {}, label), this.#numbers[label]);
    });
    const plot = document.createElementNS(NS, "svg");
    plot.setAttribute("viewBox", `0 0 ${KEPT - 1} 24`);
    plot.setAttribute("preserveAspectRatio", "none");
    plot.setAttribute("aria-hidden", "true");
    plot.append(this.#line);
    this.element = h(
      "li",
      { class: "model" },
      h("h3", {}, name, this.#state),
      this.#about,
      h("dl", { class: "numbers" }, ...facts),
      h("div", { class: "plot" }, plot, this.#most),
    );
  }

  draw({ state, summary, trouble, workers, backlog }) {
    say(this.#state, state);
    this.#state.dataset.state = state;
    say(this.#about, trouble ?? summary);
    say(this.#numbers.Workers, workers.toLocaleString());
    say(this.#numbers.Running, backlog.running.toLocaleString());
    say(this.#numbers.Waiting, backlog.waiting.toLocaleString());
    say(this.#numbers["Oldest waits"], duration(backlog.oldest_s) || "–");
    say(this.#numbers["Done in"], backlog.eta_s ? duration(backlog.eta_s) : "–");
    this.#seen = [...this.#seen, backlog.waiting + backlog.running].slice(-KEPT);
    const most = Math.max(...this.#seen);
    const first = KEPT - this.#seen.length;
    this.#line.setAttribute("points", this.#seen.map((jobs, i) => `${first + i},${23 - (22 * jobs) / (most || 1)}`).join(" "));
    say(this.#most, `at most ${most.toLocaleString()} at once in the last ${duration((this.#seen.length * EVERY_MS) / 1000)}`);
  }
}
