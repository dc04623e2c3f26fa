/** The grid of jobs: a card each, newest first, with more below as one scrolls. */

import { jobs as api } from "./api.js";
import { announce, h, icon, one, say } from "./dom.js";
import { ENDED, STATES, ago, reason, standing } from "./words.js";

const TRIES = 4;
const AHEAD = "800px 0px"; // Older ones are read before the end comes into view.

export class Gallery {
  #store;
  #act;
  #grid = one("#cards");
  #cards = new Map();
  #changed = new Set();
  #drawing = 0;

  /** `act`: what can be done with a job: open(id), cancel(id), again(id), drop(id). */
  constructor(store, act) {
    this.#store = store;
    this.#act = act;
    store.addEventListener("change", ({ detail }) => detail.forEach((id) => this.#mark(id)));
    store.addEventListener("remove", ({ detail }) => this.#mark(detail));
    store.addEventListener("rename", ({ detail }) => this.#rename(detail));
    store.addEventListener("page", () => this.#whole());
    store.addEventListener("reset", () => this.#whole());
    new IntersectionObserver(([seen]) => seen.isIntersecting && this.#older(), { rootMargin: AHEAD }).observe(one("#more"));
    setInterval(() => this.#cards.forEach((card) => card.age()), 30_000);
  }

  /** Ids in the order in which they are seen. */
  order() {
    return [...this.#grid.children].map((element) => element.dataset.id);
  }

  focus(id) {
    const card = this.#cards.get(id);
    if (card) card.focus();
    else one("#gallery").focus();
  }

  async #older() {
    if (!this.#store.more) return;
    await this.#store.older().catch(() => {});
    // What was read may be too little to move the end out of view, and then nobody would tell of it again.
    const end = one("#more").getBoundingClientRect().top;
    if (end < window.innerHeight && this.#store.more) requestAnimationFrame(() => this.#older());
  }

  #mark(id) {
    this.#changed.add(id);
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  #whole() {
    [...this.#cards.keys(), ...this.#store.shown().map((job) => job.id)].forEach((id) => this.#mark(id));
    this.#mark("");
  }

  #rename({ from, to }) {
    const card = this.#cards.get(from);
    if (!card) return;
    this.#cards.delete(from);
    this.#changed.delete(from);
    if (this.#cards.has(to)) return card.element.remove();
    card.rename(to);
    this.#cards.set(to, card);
  }

  #draw() {
    this.#drawing = 0;
    for (const id of this.#changed) {
      const job = this.#store.get(id);
      const card = this.#cards.get(id);
      if (!job || !this.#store.shows(job)) {
        card?.element.remove();
        this.#cards.delete(id);
      } else if (card) {
        card.draw(job);
      } else {
        this.#insert(job);
      }
    }
    this.#changed.clear();
    one("#empty").hidden = this.#cards.size > 0 || this.#store.more || !this.#store.listed;
    one("#more").hidden = !this.#store.more;
  }

  #insert(job) {
    const card = new Card(job, this.#act);
    this.#cards.set(job.id, card);
    this.#grid.insertBefore(card.element, this.#behind(Date.parse(job.created_at)));
  }

  /** The first card that is older: most are new, or belong at the end. */
  #behind(time) {
    const cards = this.#grid.children;
    let [low, high] = [0, cards.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (Number(cards[middle].dataset.at) < time) high = middle;
      else low = middle + 1;
    }
    return cards[low] ?? null;
  }
}

/** One job in the grid. */
class Card {
  #job;
  #act;
  #status = "";
  #shown = "";
  #tries = 0;
  #picture = h("img", { alt: "", loading: "lazy", decoding: "async", hidden: true });
  #bar = h("progress", { max: 1, hidden: true });
  #state = h("span", { class: "standing" });
  #reason = h("span", { class: "reason", hidden: true });
  #prompt = h("span", { class: "prompt" });
  #about = h("span", { class: "about" });
  #open = h("button", { type: "button", class: "open", onclick: () => this.#act.open(this.#job.id) });
  #actions = h("div", { class: "actions" });

  constructor(job, act) {
    this.#act = act;
    this.#bar.setAttribute("aria-label", "Progress");
    const frame = h("div", { class: "frame" }, this.#picture, h("div", { class: "veil" }, this.#state, this.#reason, this.#bar));
    this.element = h("li", { class: "card", data: { at: Date.parse(job.created_at) } });
    this.element.append(this.#open, frame, h("div", { class: "caption" }, this.#prompt, this.#about), this.#actions);
    this.#picture.addEventListener("error", () => this.#again());
    this.rename(job.id);
    this.draw(job);
  }

  rename(id) {
    this.element.dataset.id = id;
  }

  focus() {
    this.#open.focus();
  }

  age() {
    const { model_name, created_at, owner } = this.#job;
    say(this.#about, [model_name, ago(created_at), owner].filter(Boolean).join(" · "));
  }

  draw(job) {
    this.#job = job;
    if (job.status !== this.#status) this.#turn(job);
    const done = job.status === "succeeded";
    say(this.#prompt, job.prompt || "(no prompt)");
    say(this.#state, standing(job));
    say(this.#reason, job.status === "refused" ? job.note : job.status === "failed" ? reason(job) : "");
    this.#reason.hidden = !this.#reason.textContent;
    const { step, steps } = job.progress ?? {};
    this.#bar.hidden = !["sending", "running"].includes(job.status);
    if (steps) this.#bar.value = step / steps;
    else this.#bar.removeAttribute("value");
    this.#show(done ? api.picture(job) : (job.preview ?? job.before ?? ""));
    this.age();
    const what = `${STATES[job.status]}: ${job.prompt || "no prompt"}, ${job.model_name ?? ""}`;
    if (this.#open.getAttribute("aria-label") !== what) this.#open.setAttribute("aria-label", what);
  }

  #turn(job) {
    const before = this.#status;
    this.#status = job.status;
    this.element.dataset.status = job.status;
    if (before && ENDED.has(job.status)) announce(`${STATES[job.status]}: ${job.prompt || "picture without prompt"}`);
    const button = (name, label, press) =>
      h("button", { type: "button", class: "button small", onclick: () => press(this.#job.id) }, icon(name), label);
    const { cancel, again, drop } = this.#act;
    const held = document.activeElement?.parentElement === this.#actions;
    this.#actions.replaceChildren(
      ...{
        queued: [button("stop", "Cancel", cancel)],
        running: [button("stop", "Cancel", cancel)],
        refused: [button("again", "Send again", again), button("close", "Remove", drop)],
      }[job.status] ?? [],
    );
    if (held) this.#open.focus();
    // Nothing can be looked at before it is there.
    this.#open.disabled = ["sending", "refused"].includes(job.status);
  }

  #show(address) {
    if (address === this.#shown) return;
    this.#shown = address;
    this.#tries = 0;
    this.#picture.hidden = !address;
    if (address) this.#picture.src = address;
    else this.#picture.removeAttribute("src");
  }

  /** A door that limits requests refuses some pictures of a long list for a second, and a gateway may be away for one. */
  #again() {
    if (this.#shown.startsWith("blob:") || this.#tries >= TRIES) {
      this.#picture.hidden = true;
      return;
    }
    this.#tries += 1;
    const address = this.#shown;
    setTimeout(() => {
      if (this.#shown !== address) return;
      this.#picture.removeAttribute("src");
      this.#picture.src = address;
    }, 1000 * this.#tries);
  }
}
