/**
 * The jobs that the page knows, kept current by the stream. Everything shown is drawn from here.
 *
 * A job is what the API shows, and beside that: `preview` (a data URL), `file` and `before` (its input and an address of
 * that, where the page has it), `note` (a line of the page's own). One that is still being sent has an id of the page's own.
 */

import { identity, jobs as api } from "./api.js";
import { ENDED } from "./words.js";

const PAGE = 48;
const REFRESHED_PAGES = 10;
const GATHER_MS = 250;
const STATUS = { queued: "queued", returned: "queued", retried: "queued", started: "running" };

export class Store extends EventTarget {
  #jobs = new Map();
  #filter = { status: "", model_name: "" };
  #next = null;
  #oldest = Infinity;
  #generation = 0;
  #loading = false;
  #gathering = 0;

  get(id) {
    return this.#jobs.get(id);
  }

  /** Those that the filter lets through and that lie in the pages read so far, newest first. */
  shown() {
    return [...this.#jobs.values()].filter((job) => this.shows(job)).sort(newestFirst);
  }

  shows(job) {
    const { status, model_name } = this.#filter;
    const state = job.status === "sending" ? "queued" : job.status === "refused" ? "failed" : job.status;
    return (!status || state === status) && (!model_name || job.model_name === model_name) && at(job) >= this.#oldest;
  }

  get more() {
    return this.#next !== null;
  }

  /** Forget what was read, for another caller. */
  clear() {
    this.#jobs.clear();
    this.#generation += 1;
    this.#tell("reset");
  }

  /** Show only some; reads the newest of them. */
  async filter(filter) {
    this.#filter = filter;
    this.#next = null;
    this.#oldest = Infinity;
    this.#generation += 1;
    this.#tell("reset");
    this.#reach(await this.#read(""));
  }

  /** Read the next page of older ones. */
  async older() {
    if (this.#next === null || this.#loading) return;
    this.#loading = true;
    try {
      this.#reach(await this.#read(this.#next));
    } finally {
      this.#loading = false;
    }
  }

  /** Read from the newest on until something known comes: what happened while nobody told of it is in there. */
  async refresh() {
    if (this.#oldest === Infinity) return this.filter(this.#filter);
    let cursor = "";
    for (let pages = 0; pages < REFRESHED_PAGES; pages++) {
      const page = await this.#read(cursor);
      if (!page) return;
      if (page.known) return;
      if (page.next === null || pages + 1 === REFRESHED_PAGES) return this.#reach(page);
      cursor = page.next;
    }
  }

  /** One page; undefined when another filter or another caller came meanwhile. `known`: its last job was known before. */
  async #read(cursor) {
    const generation = this.#generation;
    const query = Object.entries({ ...this.#filter, cursor, limit: PAGE }).filter(([, value]) => value);
    const { jobs, next } = await api.list(query);
    if (generation !== this.#generation) return undefined;
    const known = jobs.length > 0 && this.#jobs.has(jobs.at(-1).id);
    this.#tell("change", jobs.map((job) => this.#merge(job)));
    return { next, known, oldest: next === null ? -Infinity : at(jobs.at(-1)) };
  }

  /** The pages read reach so far now. */
  #reach(page) {
    if (!page) return;
    this.#next = page.next;
    this.#oldest = page.oldest;
    this.#tell("page");
  }

  /** Begin with a job that is being sent; its id until it has one. */
  begin(job) {
    const id = `local-${identity()}`;
    this.#jobs.set(id, { id, created_at: new Date().toISOString(), status: "sending", ...job });
    this.#tell("change", [id]);
    return id;
  }

  /** Change what is known of a job. */
  update(id, changes) {
    const job = this.#jobs.get(id);
    if (!job) return;
    Object.assign(job, changes);
    this.#tell("change", [id]);
  }

  /** A job that was sent has its id now; it may have been told of before. */
  accepted(local, answer) {
    const sent = this.#jobs.get(local);
    if (!sent) return;
    this.#jobs.delete(local);
    const { before, file, name, created_at, model_name, prompt, priority } = sent;
    const known = this.#jobs.get(answer.id) ?? { created_at, model_name, prompt, priority };
    this.#jobs.set(answer.id, { ...answer, ...known, before, file, name, warnings: answer.warnings });
    this.#tell("rename", { from: local, to: answer.id });
    this.#tell("change", [answer.id]);
  }

  /** What the API says of a job now; its id. */
  put(job) {
    this.#merge(job);
    this.#tell("change", [job.id]);
  }

  remove(id) {
    this.#jobs.delete(id);
    this.#tell("remove", id);
  }

  /** Take in an event of the stream. */
  take(kind, data) {
    if (kind === "open" || kind === "reset") return void this.refresh().catch(() => {});
    const { job_id: id, ...told } = data;
    if (kind === "final") return this.put({ ...told, id });
    const job = this.#jobs.get(id);
    if (!job) return kind === "queued" ? this.#gather() : undefined;
    if (ENDED.has(job.status)) return;
    if (kind === "progress") this.update(id, { progress: told, status: "running" });
    else if (kind === "preview") this.update(id, { preview: told.image, status: "running" });
    else if (kind === "waiting") this.update(id, { estimate: told });
    else if (STATUS[kind]) this.update(id, begun(STATUS[kind], told));
  }

  /** Somebody else's program sent jobs; however many, they are read in one go. */
  #gather() {
    this.#gathering ||= setTimeout(() => {
      this.#gathering = 0;
      this.refresh().catch(() => {});
    }, GATHER_MS);
  }

  #merge(job) {
    const known = this.#jobs.get(job.id);
    // What was read may be older than what was told since.
    const late = known && ENDED.has(known.status) && !ENDED.has(job.status);
    if (!late) this.#jobs.set(job.id, { ...known, ...job, estimate: job.estimate ?? known?.estimate, note: "" });
    return job.id;
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

const begun = (status, { attempt, delivery }) => ({ status, attempt, delivery, progress: null, preview: null });

const at = (job) => Date.parse(job.created_at);

const newestFirst = (one, other) => at(other) - at(one) || (one.id < other.id ? 1 : -1);
