/** Before and after in one frame, with a line between them that pointer and keys move. */

import { h } from "./dom.js";

export class Compare {
  #range = h("input", { type: "range", min: 0, max: 100, step: 1, value: 50, class: "divide" });
  #after = h("img", { class: "after", alt: "After" });
  #before = h("img", { class: "before", alt: "Before" });
  element = h("div", { class: "compare" });

  constructor() {
    this.#range.setAttribute("aria-label", "Line between before and after");
    this.#range.addEventListener("input", () => this.#move());
    const labels = [h("span", { class: "tag left" }, "Before"), h("span", { class: "tag right" }, "After")];
    const line = h("div", { class: "line", "aria-hidden": "true" });
    this.element.append(this.#after, this.#before, line, ...labels, this.#range);
    this.#move();
  }

  /** Addresses of both; without a `before` there is nothing to compare. `shape` is the result's [width, height]. */
  show({ before, after, shape: [width, height] }) {
    this.element.style.setProperty("--shape", `${width} / ${height}`);
    this.element.style.setProperty("--ratio", width / height);
    this.#after.src = after;
    this.element.classList.toggle("alone", !before);
    if (before) this.#before.src = before;
    else this.#before.removeAttribute("src");
    this.#range.value = 50;
    this.#move();
  }

  #move() {
    this.element.style.setProperty("--at", `${this.#range.value}%`);
    this.#range.setAttribute("aria-valuetext", `${this.#range.value} % before`);
  }
}
