/** Small words for the document: everything that a caller or a service wrote goes in as text, never as markup. */

/** An element with properties (`on…` are listeners, `data` is a dataset, true and false are bare attributes) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An icon of index.html's sprite; what it means is said beside it. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export const pause = (ms) => new Promise((resume) => setTimeout(resume, ms));

export const one = (selector, within = document) => within.querySelector(selector);

/** Set text only where it differs: a screen reader is not told the same twice, and nothing is laid out anew. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell something to those who can't see it happen. */
export function announce(text) {
  say(one("#announcer"), text);
}

/** Copy a text; also over plain HTTP in a local network, where browsers have no clipboard for pages. */
export async function copy(text) {
  if (window.isSecureContext && navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = h("textarea", { class: "hidden", "aria-hidden": "true", readonly: true });
  field.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** A button that copies what `text()` says, and says that it did. */
export function copyButton(label, text) {
  const said = h("span", {}, label);
  let later = 0;
  const press = async () => {
    await copy(text());
    say(said, "Copied");
    announce("Copied");
    clearTimeout(later);
    later = setTimeout(() => say(said, label), 1500);
  };
  return h("button", { type: "button", class: "button quiet", onclick: press }, icon("copy"), said);
}
