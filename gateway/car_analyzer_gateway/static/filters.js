// Buttons that show only the photos with a certain verdict, and how many there are of each.

import { heads, mood } from "./answer.js";
import { make } from "./dom.js";
import { labelName, headName, say } from "./words.js";

const ALL = "all";
const FAILED = "failed";

function tags(photo) {
  if (photo.state === FAILED) return [FAILED];
  if (photo.state !== "done") return [];
  return heads(photo.answer).flatMap(({ name, labels }) => labels.map((label) => `${name}:${label}`));
}

export class Filters {
  #group;
  #chosen = ALL;
  #changed;

  constructor(group, changed) {
    this.#group = group;
    this.#changed = changed;
  }

  matches(photo) {
    return this.#chosen === ALL || tags(photo).includes(this.#chosen);
  }

  render(photos) {
    const counts = new Map([[ALL, photos.length]]);
    for (const tag of photos.flatMap(tags)) counts.set(tag, (counts.get(tag) ?? 0) + 1);
    if (!counts.has(this.#chosen)) this.#chosen = ALL;
    const order = [...counts.keys()].sort((a, b) => rank(a).localeCompare(rank(b)));
    const focused = this.#group.contains(document.activeElement) ? document.activeElement.dataset.tag : null;
    this.#group.hidden = photos.length < 2;
    this.#group.replaceChildren(...order.map((tag) => this.#button(tag, counts.get(tag))));
    if (focused) [...this.#group.children].find((button) => button.dataset.tag === focused)?.focus();
  }

  #button(tag, count) {
    const pressed = { "aria-pressed": String(tag === this.#chosen) };
    const [head, ...rest] = tag.split(":");
    const label = rest.join(":");
    const text = rest.length ? labelName(label) : say(tag);
    const button = make(
      "button",
      { type: "button", className: "filter", attributes: pressed, dataset: { tag, mood: moodOf(tag, label) } },
      `${text} `,
      make("b", { textContent: String(count) }),
    );
    if (rest.length) button.title = headName(head);
    button.addEventListener("click", () => {
      this.#chosen = tag;
      this.#changed();
    });
    return button;
  }
}

// Heads stay together, and in each the good news comes first.
function rank(tag) {
  if (tag === ALL || tag === FAILED) return tag === ALL ? "0" : "2";
  const [head, label] = tag.split(":");
  return `1${head}:${mood(label) === "good" ? 0 : 1}${label}`;
}

const moodOf = (tag, label) => (tag === FAILED ? "bad" : tag === ALL ? "plain" : mood(label));
