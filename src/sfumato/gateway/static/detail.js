/** One job, large: the picture beside what it was, what was asked for, and what can be done with it. */

import { Problem, jobs as api, key } from "./api.js";
import { Compare } from "./compare.js";
import { copyButton, h, icon, one, pause, say } from "./dom.js";
import { asked, client, curl } from "./snippets.js";
import { ENDED, STATES, duration, reason, size, standing } from "./words.js";

const ENDINGS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp" };
const SURE_MS = 4_000;
const [TRIES, WAIT_MS] = [10, 500];
// Where results lie in a store of their own, a browser opens them instead of saving them; then not over this page.
const AWAY = { target: "_blank", rel: "noopener" };

export class Detail {
  #store;
  #act;
  #dialog = one("#detail");
  #compare = new Compare();
  #waiting = h("img", { class: "coming", alt: "" });
  #job = null;
  #seen = "";

  /** `act`: rules(model), reuse(id), another(id), cancel(id), and order() of the ids shown, focus(id). */
  constructor(store, act) {
    this.#store = store;
    this.#act = act;
    one("#detail-picture").append(this.#compare.element, this.#waiting);
    for (const name of ["curl", "python"]) {
      one(`#detail-${name}`).previousElementSibling.append(copyButton("Copy", () => one(`#detail-${name}`).textContent));
    }
    store.addEventListener("change", ({ detail }) => this.#job && detail.includes(this.#job.id) && this.#draw());
    store.addEventListener("remove", ({ detail }) => this.#job?.id === detail && this.#leave());
    this.#dialog.addEventListener("close", () => this.#closed());
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    one("#detail-close").addEventListener("click", () => this.#dialog.close());
    one("#detail-older").addEventListener("click", () => this.#step(1));
    one("#detail-newer").addEventListener("click", () => this.#step(-1));
  }

  async open(id) {
    if (this.#job) this.#release(this.#job);
    this.#job = this.#store.get(id);
    this.#seen = "";
    if (!this.#job) return;
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#draw();
    await Promise.all([this.#before(id), this.#whole(id)]);
  }

  /** Of a job that this page has just sent it knows the id alone. */
  async #whole(id) {
    for (let tries = 0; tries < TRIES && this.#job?.id === id && !this.#job.params; tries++) {
      await api.get(id).then(
        (job) => this.#store.put(job),
        () => {},
      );
      if (!this.#job?.params) await pause(WAIT_MS);
    }
  }

  /** The input, asked for when it is first looked at. */
  async #before(id) {
    const job = this.#store.get(id);
    if (!job || job.before || job.gone) return;
    try {
      const file = await api.input(id);
      this.#store.update(id, { file, before: URL.createObjectURL(file), fetched: true });
    } catch (problem) {
      if (problem instanceof Problem && !problem.passing) this.#store.update(id, { gone: problem.detail });
    }
  }

  #closed() {
    const job = this.#job;
    this.#job = null;
    if (!job) return;
    this.#act.focus(job.id);
    this.#release(job);
  }

  /** The service has the input; hundreds of those looked at would fill the memory. */
  #release(job) {
    if (!job.fetched) return;
    URL.revokeObjectURL(job.before);
    this.#store.update(job.id, { file: null, before: null, fetched: false });
  }

  /** The job is gone: back to what stands beside it. */
  #leave() {
    const order = this.#act.order();
    const at = order.indexOf(this.#job.id);
    this.#job = null;
    this.#dialog.close();
    this.#act.focus(order[at + 1] ?? order[at - 1]);
  }

  #key(event) {
    if (event.target.matches("input, textarea, select, pre")) return;
    if (event.key === "ArrowLeft") this.#step(-1);
    if (event.key === "ArrowRight") this.#step(1);
  }

  #step(by) {
    const order = this.#act.order().filter((id) => !id.startsWith("local-"));
    const at = order.indexOf(this.#job?.id);
    const next = at < 0 ? undefined : order[at + by];
    if (next) this.open(next);
  }

  #draw() {
    const job = this.#store.get(this.#job.id);
    if (!job) return;
    this.#job = job;
    this.#picture(job);
    say(one("#detail-standing"), standing(job));
    one("#detail-standing").dataset.status = job.status;
    say(one("#detail-reason"), job.status === "failed" || job.next_attempt_at ? reason(job) : "");
    const seen = JSON.stringify([job.status, job.prompt, job.params, job.result, job.attempt, job.gone, job.timings]);
    if (seen === this.#seen) return; // what was drawn may have the focus
    this.#seen = seen;
    say(one("#detail-title"), job.prompt || "(no prompt)");
    say(one("#detail-warning"), [...(job.warnings ?? []), job.gone ?? ""].join(" "));
    one("#detail-facts").replaceChildren(...this.#facts(job));
    one("#detail-actions").replaceChildren(...this.#actions(job));
    this.#request(job);
  }

  #picture(job) {
    const done = job.status === "succeeded" && job.result;
    this.#compare.element.hidden = !done;
    this.#waiting.hidden = Boolean(done);
    if (done) {
      const { width, height } = job.result;
      const shown = [job.before ?? "", api.picture(job)].join(" ");
      if (this.#compare.element.dataset.shown !== shown) {
        this.#compare.show({ before: job.before, after: api.picture(job), shape: [width, height] });
        this.#compare.element.dataset.shown = shown;
      }
      return;
    }
    const address = job.preview ?? job.before ?? "";
    if (address && this.#waiting.src !== address) this.#waiting.src = address;
    if (!address) this.#waiting.hidden = true;
    this.#waiting.classList.toggle("soft", Boolean(job.preview));
  }

  #facts(job) {
    const { params = {}, result, timings = {}, metadata } = job;
    const facts = {
      Status: STATES[job.status],
      Model: job.model_name,
      Priority: job.priority,
      "Not this": params.negative_prompt,
      Strength: params.strength,
      Steps: params.num_inference_steps,
      Guidance: params.guidance_scale,
      Seed: params.seed,
      Sampler: params.sampler,
      Size: result ? `${result.width}\u00a0×\u00a0${result.height}, ${size(result.size_bytes)}` : "",
      Sent: job.created_at ? `${new Date(job.created_at).toLocaleString()}` : "",
      Waited: duration(timings.wait_s),
      Took: duration(timings.total_s),
      Attempts: job.attempt ? job.attempt + 1 : "",
      Owner: job.owner,
      Metadata: metadata && Object.keys(metadata).length ? JSON.stringify(metadata) : "",
      Id: job.id,
    };
    return Object.entries(facts)
      .filter(([, value]) => value !== "" && value !== undefined && value !== null)
      .map(([name, value]) => [name, String(value)])
      .map(([name, value]) => h("div", { class: value.length > 18 ? "long" : "" }, h("dt", {}, name), h("dd", {}, value)));
  }

  #actions(job) {
    const button = (name, label, press, kind = "quiet") =>
      h("button", { type: "button", class: `button ${kind}`, onclick: press }, icon(name), h("span", {}, label));
    const again = button("again", "Run again with another seed", () => this.#act.another(job.id), "main");
    if (!job.params) return ENDED.has(job.status) ? [] : [button("stop", "Cancel", () => this.#act.cancel(job.id), "main")];
    const reuse = button("edit", "Use these settings", () => this.#act.reuse(job.id));
    if (!ENDED.has(job.status)) return [button("stop", "Cancel", () => this.#act.cancel(job.id), "main"), reuse];
    const ended = [...(job.gone ? [] : [again]), reuse, this.#delete(job)];
    if (job.status !== "succeeded") return ended;
    const name = `${job.id}.${ENDINGS[job.result.media_type] ?? "png"}`;
    const download = h("a", { class: "button quiet", href: api.picture(job), download: name, ...AWAY }, icon("download"), h("span", {}, "Download"));
    return [...(job.gone ? [] : [again]), download, copyButton("Copy link", () => job.result_url), reuse, this.#delete(job)];
  }

  /** Twice, since what is deleted is gone. */
  #delete(job) {
    const said = h("span", {}, "Delete");
    let sure = false;
    const press = async () => {
      if (!sure) {
        sure = true;
        say(said, "Really delete?");
        setTimeout(() => {
          sure = false;
          say(said, "Delete");
        }, SURE_MS);
        return;
      }
      try {
        await api.delete(job.id);
        this.#store.remove(job.id);
      } catch (problem) {
        if (problem.slug === "not-found") this.#store.remove(job.id);
        else say(one("#detail-warning"), problem.detail);
      }
    };
    return h("button", { type: "button", class: "button quiet danger", onclick: press }, icon("bin"), said);
  }

  #request(job) {
    const about = {
      base: new URL(".", document.baseURI).href.replace(/\/$/, ""),
      rules: this.#act.rules(job.model_name),
      keys: Boolean(key.get()),
      name: job.name ?? "picture.jpg",
    };
    say(one("#detail-curl"), job.params ? curl(job, about) : "");
    say(one("#detail-python"), job.params ? client(job, about) : "");
    one("#detail-request").hidden = !job.params;
  }
}

/** The values of a job as the form would send them, with a seed of its own. */
export function anew(job, rules) {
  const { seed: _, ...values } = asked(job, rules);
  return { model_name: job.model_name, ...values, seed: String(crypto.getRandomValues(new Uint32Array(1))[0]) };
}
