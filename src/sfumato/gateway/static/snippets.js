/** The very request behind a job, as a command and as a program; running one makes the same picture again. */

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const python = (value) => (typeof value === "number" ? String(value) : JSON.stringify(value));

/** What was asked for where it differs from what the model takes anyway, and the seed. */
export function asked(job, rules = {}) {
  const { exact, width, height, ...params } = job.params ?? {};
  const usual = { ...rules, negative_prompt: "", resize_mode: "crop", seed: undefined };
  const values = { prompt: job.prompt };
  for (const [name, value] of Object.entries({ ...params, ...(exact ? { width, height } : {}) })) {
    if (value !== usual[name]) values[name] = value; // a seed may be text, see api.js
  }
  if (job.priority && job.priority !== "normal") values.priority = job.priority;
  return values;
}

export function curl(job, { base, rules, keys, name }) {
  const query = new URLSearchParams({ model_name: job.model_name, ...asked(job, rules) });
  // curl itself reads a name in double quotes, in which semicolons and commas mean nothing.
  const lines = [`curl -F ${shell(`image=@"${name.replaceAll(/["\\]/g, "\\$&")}"`)}`];
  if (keys) lines.push(`-H "Authorization: Bearer $SFUMATO_API_KEY"`);
  lines.push(shell(`${base}/api/diffusion?${query}`));
  return lines.join(" \\\n  ");
}

export function client(job, { base, rules, keys, name }) {
  const values = Object.entries(asked(job, rules)).map(([parameter, value]) => `        ${parameter}=${parameter === "seed" ? value : python(value)},\n`);
  const opened = keys ? `Client(${python(base)}, api_key=os.environ["SFUMATO_API_KEY"])` : `Client(${python(base)})`;
  return `${keys ? "import os\n\n" : ""}from sfumato import Client

with ${opened} as client:
    result = client.generate(
        ${python(name)},
        ${python(job.model_name)},
${values.join("")}    )
    print(result.save("result"))
`;
}
