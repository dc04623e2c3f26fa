/**
 * The jobs that the page knows, kept current by the stream. Everything shown is drawn from here.
 *
 * A job is what the API shows, and beside that: `preview` (a data URL), `file` and `before` (its input and an address of
 * that, where the page has it), `note` (a line of the page's own). One that is still being sent has an id of the page's own.
 */

import { identity, jobs as api } from "./api.js";
import { pause } from "./dom.js";
import { ENDED } from "./words.js";

const PAGE = 48;
const REFRESHED_PAGES = 10;
const UNSENT = new Set(["sending", "refused"]);
const GATHER_MS = 250;
const STATUS = { queued: "queued", returned: "queued", retried: "queued", started: "running" };

export class Store extends EventTarget {
  #jobs = new Map();
  #filter = { status: "", model_name: "" };
  #next = null;
  #oldest = Infinity;
  #newest = -Infinity;
  #removed = new Set();
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
    if (UNSENT.has(job.status)) return true; // nobody but this page has them
    return (!status || job.status === status) && (!model_name || job.model_name === model_name) && at(job) >= this.#oldest;
  }

  /** Whether anything was read by now. */
  get listed() {
    return this.#oldest !== Infinity;
  }

  get more() {
    return this.#next !== null;
  }

  /** Forget what was read, for another caller; what could not be sent yet stays. */
  clear() {
    for (const job of this.#jobs.values()) if (!UNSENT.has(job.status)) this.#jobs.delete(job.id);
    this.#removed.clear();
    this.#generation += 1;
    this.#tell("reset");
  }

  /** Show only some; reads the newest of them. */
  async filter(filter) {
    this.#filter = filter;
    this.#next = null;
    this.#oldest = Infinity;
    this.#newest = -Infinity;
    this.#generation += 1;
    this.#tell("reset");
    const page = await this.#read("");
    this.#reach(page);
    if (page) this.#newest = page.newest;
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

  /** Read from the newest on until what was read before: jobs that came meanwhile are in there. */
  async refresh() {
    if (!this.listed) return this.filter(this.#filter);
    const before = this.#newest;
    let page = await this.#read("");
    const newest = page?.newest;
    for (let pages = 1; page && page.next !== null && page.oldest > before; pages++) {
      // Too far to go on: what lies between is read again as one scrolls.
      if (pages === REFRESHED_PAGES) return this.#reach(page);
      page = await this.#read(page.next);
    }
    if (page) this.#newest = Math.max(before, newest);
    if (page?.next === null) this.#reach(page);
  }

  /** Events were missed for good: also look again at each job that had not ended by then. */
  async #catchUp() {
    const under = [...this.#jobs.values()].filter((job) => !ENDED.has(job.status) && !UNSENT.has(job.status));
    await this.refresh();
    for (const { id } of under) {
      if (ENDED.has(this.#jobs.get(id)?.status)) continue;
      await api.get(id).then(
        (job) => this.put(job),
        (problem) => problem.slug === "not-found" && this.remove(id),
      );
    }
  }

  /** One page, however long the service makes one wait; undefined when another filter or caller came meanwhile. */
  async #read(cursor) {
    const generation = this.#generation;
    const query = Object.entries({ ...this.#filter, cursor, limit: PAGE }).filter(([, value]) => value);
    for (;;) {
      try {
        const { jobs, next } = await api.list(query);
        if (generation !== this.#generation) return undefined;
        this.#tell("change", jobs.map((job) => this.#merge(job)));
        const [newest, oldest] = jobs.length ? [at(jobs[0]), at(jobs.at(-1))] : [-Infinity, -Infinity];
        return { next, newest, oldest: next === null ? -Infinity : oldest };
      } catch (problem) {
        if (generation !== this.#generation) return undefined;
        if (!problem.passing) throw problem;
        await pause(1000 * Math.max(1, problem.retryAfterS ?? 0));
      }
    }
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
    // First whatever the clocks say.
    const now = Math.max(Date.now(), this.#newest + 1);
    this.#jobs.set(id, { id, created_at: new Date(now).toISOString(), status: "sending", ...job });
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
    this.#removed.add(id);
    this.#jobs.delete(id);
    this.#tell("remove", id);
  }

  /** Take in an event of the stream. */
  take(kind, data) {
    if (kind === "open") return data.resumed ? undefined : void this.refresh().catch(() => {});
    if (kind === "reset") return void this.#catchUp().catch(() => {});
    const { job_id: id, resumed: _, ...told } = data;
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
    if (this.#removed.has(job.id)) return job.id;
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

const begun = (status, { attempt, delivery }) => ({
  ...{ status, attempt, delivery, progress: null, preview: null },
  ...(status === "running" ? { next_attempt_at: null, error: null } : {}),
});

const at = (job) => Date.parse(job.created_at);

const newestFirst = (one, other) => at(other) - at(one) || (one.id < other.id ? 1 : -1);
