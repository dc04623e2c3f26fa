/** Every request of the page: with the key if there is one, to this service alone, and each failure in words. */

const KEY = "sfumato-key";
let refused = () => {};

/** The key lives as long as this tab, and goes to this service alone. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

/** What to do when the service wants another key. */
export function onRefused(listener) {
  refused = listener;
}

/** A request that failed: the service's own words (RFC 9457), or ours when it did not answer. */
export class Problem extends Error {
  constructor({ slug, title = "", detail = "", status = 0, retryAfterS = null }) {
    super(detail || title);
    Object.assign(this, { slug, title, detail: detail || title, status, retryAfterS });
  }

  /** Whether the same request may well work a moment later. */
  get passing() {
    return ["offline", "try-again", "overloaded", "not-ready", "rate-exceeded", "too-many-requests"].includes(this.slug);
  }
}

/** Ask `path`, which is relative to the page so that it works below any prefix. Gives the Response; throws Problem. */
export async function ask(path, { headers = {}, ...options } = {}) {
  const shown = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  let response;
  try {
    response = await fetch(path, { credentials: "omit", ...options, headers: { ...shown, ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ slug: "offline", detail: "The service does not answer. Is it running?" });
  }
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (problem.slug === "unauthorized") refused(problem);
  throw problem;
}

export async function json(path, options) {
  return parse(await (await ask(path, options)).text());
}

/** JSON in which a seed beyond 2⁵³, which a number here can't hold, stays as it was written: as text. */
export function parse(text) {
  return JSON.parse(text, (name, value, context) =>
    name === "seed" && context?.source && typeof value === "number" && !Number.isSafeInteger(value) ? context.source : value,
  );
}

async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  const after = Number(response.headers.get("Retry-After"));
  return new Problem({
    slug: String(told.type ?? "").replace("urn:sfumato:problem:", "") || `http-${response.status}`,
    title: told.title ?? response.statusText,
    detail: told.detail ?? `The service answered ${response.status} ${response.statusText}.`,
    status: response.status,
    retryAfterS: after > 0 ? after : null,
  });
}

/** Send one picture. The same `identity` is the same job, however often it has to be sent. */
export function submit(picture, values, identity) {
  const form = new FormData();
  for (const [name, value] of Object.entries(values)) form.append(name, value);
  form.append("image", picture.file, picture.name);
  return json("api/diffusion", { method: "POST", body: form, headers: { "Idempotency-Key": identity } });
}

const job = (id) => `api/jobs/${encodeURIComponent(id)}`;

export const jobs = {
  list: (query) => json(`api/jobs?${new URLSearchParams(query)}`),
  get: (id) => json(job(id)),
  cancel: (id) => json(`${job(id)}/cancel`, { method: "POST" }),
  delete: (id) => ask(job(id), { method: "DELETE" }),
  /** Where the result is for this page, wherever the links that others get lead. */
  picture: ({ id, result_url }) => `${job(id)}/result${new URL(result_url).search}`,
  input: async (id) => (await ask(`${job(id)}/input`)).blob(),
};
export const models = async () => (await json("api/models")).models;
export const status = () => json("api/status");

/** A name for a request that nobody else has; `crypto.randomUUID` is not there over plain HTTP. */
export const identity = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
