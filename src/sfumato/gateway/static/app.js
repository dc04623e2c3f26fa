/** The page put together: which part tells which, and nothing else. */

import { Problem, jobs as api, key, models, onRefused, status } from "./api.js";
import { Detail, anew } from "./detail.js";
import { announce, one, say } from "./dom.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { KeyDialog } from "./keys.js";
import { Pictures } from "./pictures.js";
import { Sending } from "./sending.js";
import { Service } from "./service.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";

const MODELS_EVERY_MS = 15_000;

const store = new Store();
const pictures = new Pictures(() => form.count());
const form = new Form({ submit, pictures });
const sending = new Sending(store, (problem) => form.refuse(problem));
const gallery = new Gallery(store, { open: (id) => detail.open(id), cancel, again: (id) => sending.again(id), drop: (id) => sending.drop(id) });
const detail = new Detail(store, { rules, reuse, another, cancel, order: () => gallery.order(), focus: (id) => gallery.focus(id) });
const service = new Service((told) => limits(told));
const stream = new Stream({ tell: (kind, data) => store.take(kind, data), state: connection });
const keys = new KeyDialog(() => begin());
let known = [];

function rules(name) {
  return known.find((model) => model.name === name)?.rules;
}

function limits(told) {
  pictures.maxBytes = told.limits.max_upload_bytes;
}

function submit(chosen, values, copies) {
  for (const picture of chosen) {
    for (let copy = 0; copy < copies; copy++) {
      const seed = values.seed ? { seed: String(BigInt(values.seed) + BigInt(copy)) } : {};
      sending.begin(picture, { ...values, ...seed });
    }
  }
  if (one("#filter-status").value || one("#filter-model").value) filter("", "");
  one("#gallery").scrollIntoView({ block: "nearest" });
}

async function cancel(id) {
  try {
    store.put(await api.cancel(id));
  } catch (problem) {
    // It ended before the cancel came; how, the stream says too.
    if (problem.slug === "already-ended") api.get(id).then((job) => store.put(job), tell);
    else tell(problem);
  }
}

/** The same once more with another seed; the picture is the service's if the page does not have it. */
async function another(id) {
  const job = store.get(id);
  try {
    const file = job.file ?? new Blob([await api.input(id)]);
    const picture = { file, name: job.name ?? "picture", url: job.before ?? URL.createObjectURL(file) };
    sending.begin(picture, anew(job, rules(job.model_name)));
    one("#detail").close();
  } catch (problem) {
    tell(problem);
  }
}

function reuse(id) {
  one("#detail").close();
  look("#pictures");
  form.fill(store.get(id));
}

function tell(problem) {
  const text = problem instanceof Problem ? problem.detail : String(problem);
  const place = one(one("#detail").open ? "#detail-warning" : "#trouble");
  say(place, text);
  setTimeout(() => place.textContent === text && say(place, ""), 8_000);
}

function connection(state) {
  one("#connection").dataset.state = state;
  say(one("#connection span"), { live: "Live", lost: "Connection lost, trying again …", refused: "Needs a key" }[state]);
  if (state === "live") say(one("#trouble"), "");
  if (state === "lost") announce("Connection lost, trying again");
}

function filter(wanted, model) {
  one("#filter-status").value = wanted;
  one("#filter-model").value = model;
  store.filter({ status: wanted, model_name: model }).catch((problem) => problem.slug !== "unauthorized" && tell(problem));
}

function look(view) {
  const seen = view === "#service" ? "service" : "pictures";
  one("#pictures").hidden = seen !== "pictures";
  service.show(seen === "service");
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${seen}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** The models, now and from time to time: they come, go, start and break. */
async function follow() {
  try {
    known = await models();
    form.show(known);
    const names = known.map((model) => model.name);
    const select = one("#filter-model");
    const missing = names.filter((name) => ![...select.options].some((option) => option.value === name));
    select.append(...missing.map((name) => new Option(name, name)));
    one("#filter-model-field").hidden = select.options.length < 3;
  } catch (problem) {
    if (!problem.passing && problem.slug !== "unauthorized") tell(problem);
  }
}

async function begin() {
  store.clear();
  await follow();
  status().then(limits, () => {});
  form.forgive();
  filter("", "");
  stream.restart();
  if (key.get()) sending.keyed();
}

onRefused((problem) => keys.ask(problem));
for (const name of ["#filter-status", "#filter-model"]) {
  one(name).addEventListener("change", () => filter(one("#filter-status").value, one("#filter-model").value));
}
window.addEventListener("hashchange", () => look(location.hash));
setInterval(() => document.hidden || keys.declined || follow(), MODELS_EVERY_MS);
look(location.hash);
begin();
if (key.get()) keys.known();
