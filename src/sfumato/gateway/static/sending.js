/** Sends pictures, a few at a time, until the service has taken each or said why not. */

import { Problem, identity, submit } from "./api.js";
import { pause } from "./dom.js";

const AT_ONCE = 4;
const PATIENCE_MS = 120_000;
const LONGEST_WAIT_MS = 8_000;

export class Sending {
  #store;
  #waiting = [];
  #kept = new Map();
  #running = 0;
  #refused;

  /** `refused(problem)` when the service would not have a picture. */
  constructor(store, refused) {
    this.#store = store;
    this.#refused = refused;
    // What is being sent lives in this tab alone.
    window.addEventListener("beforeunload", (event) => this.#running && event.preventDefault());
  }

  /** Send a picture with these values; it is seen at once. */
  begin(picture, values) {
    const { model_name, prompt, priority = "normal" } = values;
    const local = this.#store.begin({ model_name, prompt, priority, before: picture.url, file: picture.file, name: picture.name });
    this.#kept.set(local, { picture, values, identity: identity() });
    this.#waiting.push(local);
    this.#next();
  }

  /** Send again what was refused; should it have been taken after all, it stays one job. */
  again(local) {
    this.#store.update(local, { status: "sending", note: "" });
    this.#kept.get(local).refused = "";
    this.#waiting.push(local);
    this.#next();
  }

  /** Send again what was refused for the want of a key. */
  keyed() {
    for (const [local, { refused }] of this.#kept) if (refused === "unauthorized") this.again(local);
  }

  drop(local) {
    this.#kept.delete(local);
    this.#store.remove(local);
  }

  async #next() {
    if (this.#running >= AT_ONCE || !this.#waiting.length) return;
    const local = this.#waiting.shift();
    this.#running += 1;
    try {
      this.#store.accepted(local, await this.#send(local));
      this.#kept.delete(local);
    } catch (problem) {
      this.#kept.get(local).refused = problem.slug;
      this.#store.update(local, { status: "refused", note: problem.detail ?? String(problem) });
      this.#refused(problem);
    } finally {
      this.#running -= 1;
      this.#next();
    }
  }

  async #send(local) {
    const { picture, values, identity } = this.#kept.get(local);
    const until = Date.now() + PATIENCE_MS;
    for (let wait = 500; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
      try {
        return await submit(picture, values, identity);
      } catch (problem) {
        if (!problem.passing || Date.now() > until) throw problem;
        if (problem.slug === "offline") await stillThere(picture);
        this.#store.update(local, { note: `${problem.detail} Sending again …` });
        await pause(Math.max(wait, 1000 * (problem.retryAfterS ?? 0)));
        this.#store.update(local, { note: "" });
      }
    }
  }
}

/** A browser tells of a file that was moved or changed since it was chosen as of a service that does not answer. */
async function stillThere(picture) {
  try {
    await picture.file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Problem({ slug: "unreadable", detail: "The file was moved or changed since it was chosen; choose it again." });
  }
}
