/** The key, where the service wants one. */

import { key } from "./api.js";
import { one, say } from "./dom.js";

export class KeyDialog {
  #dialog = one("#key");
  #field = one("#key-field");
  /** Whether somebody was asked for a key and would not give one: then not again until it is wanted. */
  declined = false;
  #taken = false;

  /** `changed` when there is another key, or none any more. */
  constructor(changed) {
    one("#key-open").addEventListener("click", () => this.#open("Your key", ""));
    one("#key-cancel").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => (this.declined = !this.#taken));
    one("#key-forget").addEventListener("click", () => this.#take("", changed));
    one("#key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.#field.value.trim();
      // The browser would refuse to put anything else into a header.
      if (!/^[\x21-\x7e]+$/.test(text)) return this.#wrong("A key is one word that begins with sfu_.");
      this.#take(text, changed);
    });
  }

  /** The service refused the request: no key yet, or one that is not good. */
  ask(problem) {
    if (this.#dialog.open) return;
    const trouble = key.get() ? `This key is not good any more, or never was. ${problem.detail}` : "";
    this.#open("This service wants a key", trouble);
  }

  known() {
    one("#key-open").dataset.set = String(Boolean(key.get()));
    one("#key-forget").hidden = !key.get();
  }

  #open(title, trouble) {
    say(one("#key-title"), title);
    this.#field.value = "";
    this.#taken = false;
    this.#wrong(trouble);
    this.known();
    this.#dialog.showModal();
  }

  #wrong(text) {
    say(one("#key-error"), text);
    this.#field.setAttribute("aria-invalid", String(Boolean(text)));
  }

  #take(text, changed) {
    key.set(text);
    this.#taken = true;
    this.known();
    this.#dialog.close();
    changed();
  }
}
