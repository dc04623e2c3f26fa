/** The pictures to work on: dropped, pasted, chosen, or one of the samples. */

import { announce, h, icon, one, say } from "./dom.js";
import { size } from "./words.js";

const TYPES = new Set(["image/png", "image/jpeg", "image/webp"]);
const SAMPLES = ["cat", "coffee", "astronaut", "rocket"];
const MOST = 500;

export class Pictures {
  #chosen = [];
  #list = one("#chosen");
  #error = one("#pictures-error");
  #file = one("#file");
  #changed;
  maxBytes = Infinity;

  constructor(changed) {
    this.#changed = changed;
    this.#file.addEventListener("change", () => {
      this.add([...this.#file.files]);
      this.#file.value = ""; // the same file may be chosen once more
    });
    document.addEventListener("paste", (event) => this.#paste(event));
    this.#drops();
    one("#samples").append(...SAMPLES.map((name) => this.#sample(name)));
  }

  get chosen() {
    return this.#chosen;
  }

  /** Take these files; each that can't be taken is named with the reason. */
  add(files) {
    const troubles = [];
    for (const file of files) {
      const trouble = this.#trouble(file);
      if (trouble) troubles.push(`${file.name || "The picture"}: ${trouble}`);
      // Without the type that a file's name claims: what it is stands in its first bytes, and the service reads those.
      else this.#chosen.push({ file: new Blob([file]), name: file.name || "pasted.png", url: URL.createObjectURL(file) });
    }
    this.refuse(troubles.join(" "));
    this.#draw();
  }

  refuse(text) {
    say(this.#error, text);
    this.#file.setAttribute("aria-invalid", String(Boolean(text)));
  }

  /** What a browser can tell of a file; all else the service says when it was sent. */
  #trouble(file) {
    if (this.#chosen.length >= MOST) return `At most ${MOST} pictures at once.`;
    if (!TYPES.has(file.type)) return `this is ${file.type || "no picture that a browser knows"}; send PNG, JPEG or WebP.`;
    if (!file.size) return "the file is empty.";
    if (file.size > this.maxBytes) return `it has ${size(file.size)}; at most ${size(this.maxBytes)} are taken.`;
    return "";
  }

  #paste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || one("dialog[open]")) return; // text goes where the cursor is
    event.preventDefault();
    this.add(files);
    announce(`${files.length === 1 ? "One picture" : `${files.length} pictures`} pasted`);
  }

  #drops() {
    const zone = one("#drop");
    let depth = 0; // each element that is crossed tells of coming and going
    const carries = (event) => event.dataTransfer?.types.includes("Files");
    const light = (by) => {
      depth = Math.max(0, depth + by);
      zone.classList.toggle("over", depth > 0);
    };
    document.addEventListener("dragenter", (event) => carries(event) && light(1));
    document.addEventListener("dragleave", (event) => carries(event) && light(-1));
    document.addEventListener("dragover", (event) => carries(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      light(-depth);
      this.add([...event.dataTransfer.files]);
    });
  }

  #sample(name) {
    const take = async () => {
      const answer = await fetch(`static/samples/${name}.jpg`);
      this.add([new File([await answer.blob()], `${name}.jpg`, { type: "image/jpeg" })]);
    };
    const picture = h("img", { src: `static/samples/${name}.jpg`, alt: "", width: 56, height: 56 });
    return h("button", { type: "button", class: "sample", "aria-label": `Sample: ${name}`, onclick: take }, picture);
  }

  #draw() {
    this.#list.replaceChildren(
      ...this.#chosen.map((picture) =>
        h(
          "li",
          { class: "chosen" },
          h("img", { src: picture.url, alt: picture.name }),
          h(
            "button",
            { type: "button", class: "remove", "aria-label": `Remove ${picture.name}`, onclick: () => this.#remove(picture) },
            icon("close"),
          ),
        ),
      ),
    );
    this.#list.hidden = !this.#chosen.length;
    one("#drop").classList.toggle("filled", this.#chosen.length > 0);
    this.#changed();
  }

  #remove(picture) {
    // Its address stays good: a job that was sent with it shows it.
    this.#chosen = this.#chosen.filter((each) => each !== picture);
    this.#draw();
    this.#file.focus();
  }
}
