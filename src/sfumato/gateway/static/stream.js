/**
 * GET /api/events, followed for as long as the page is seen.
 *
 * EventSource can't send a key, so the stream is read by fetch; the rest is as the HTML standard has it: events end with
 * an empty line, and whoever comes back names the last id, on whichever gateway. A hidden tab holds no connection (a
 * browser has six to a host over HTTP/1.1) and asks for no previews; when it is seen again, it is told what it missed.
 */

import { ask, parse } from "./api.js";
import { pause } from "./dom.js";

const SILENT_MS = 40_000; // The service gives a sign of life every 15 s.
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5_000;

/** The events of a text that comes in pieces: [{kind, id, data}], whole ones alone. */
export class Parser {
  #text = "";

  feed(piece) {
    this.#text += piece;
    const blocks = this.#text.split("\n\n");
    this.#text = blocks.pop();
    return blocks.map(eventOf).filter((event) => event.kind || event.id);
  }
}

function eventOf(block) {
  const event = { kind: "", id: "", data: null };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name === "event") event.kind = value;
    else if (name === "id") event.id = value;
    else if (name === "data") event.data = parse(value);
  }
  return event;
}

export class Stream {
  #last = "";
  #abort = null;
  #wanted = false;
  #tell;
  #state;

  /** `tell(kind, data)` of each event; `state("live" | "lost" | "refused")` as the connection comes and goes. */
  constructor({ tell, state }) {
    this.#tell = tell;
    this.#state = state;
    document.addEventListener("visibilitychange", () => this.#turn());
  }

  start() {
    this.#wanted = true;
    this.#turn();
  }

  /** Begin anew with another key. */
  restart() {
    this.#last = "";
    this.#abort?.abort();
    this.#abort = null;
    this.start();
  }

  stop() {
    this.#wanted = false;
    this.#turn();
  }

  #turn() {
    const runs = this.#wanted && !document.hidden;
    if (runs && !this.#abort) this.#run((this.#abort = new AbortController()).signal);
    if (!runs && this.#abort) {
      this.#abort.abort();
      this.#abort = null;
    }
  }

  async #run(signal) {
    let wait = FIRST_WAIT_MS;
    while (!signal.aborted) {
      try {
        await this.#connect(signal, () => (wait = FIRST_WAIT_MS));
      } catch (problem) {
        if (signal.aborted) return;
        if (problem.slug === "unauthorized" || problem.slug === "forbidden") {
          this.#state("refused");
          return this.stop();
        }
        // An id that this service does not know: begin anew.
        if (problem.slug === "invalid-parameters") this.#last = "";
      }
      if (signal.aborted) return;
      this.#state("lost");
      await pause(wait * (0.75 + Math.random() / 2));
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  }

  async #connect(signal, connected) {
    const own = new AbortController();
    const leave = () => own.abort();
    signal.addEventListener("abort", leave);
    let silent = 0;
    const alive = () => {
      clearTimeout(silent);
      silent = setTimeout(leave, SILENT_MS);
    };
    try {
      alive();
      const headers = this.#last ? { "Last-Event-ID": this.#last } : {};
      const response = await ask("api/events?previews=true", { headers, signal: own.signal, cache: "no-store" });
      connected();
      this.#state("live");
      const resumed = Boolean(this.#last);
      const parser = new Parser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        alive();
        for (const { kind, id, data } of parser.feed(piece.value)) {
          if (kind && !signal.aborted) this.#tell(kind, { ...data, resumed });
          if (id) this.#last = id;
        }
      }
    } finally {
      clearTimeout(silent);
      own.abort();
      signal.removeEventListener("abort", leave);
    }
  }
}
