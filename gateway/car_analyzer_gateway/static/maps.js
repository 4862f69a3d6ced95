// Where in a photo its answers come from: a button for each head, which lays its map over the preview.

import { Refusal } from "./api.js";
import { make, makeSvg } from "./dom.js";
import { complain } from "./errors.js";
import { headName, labelName, say } from "./words.js";

export class Maps {
  #frame;
  #explain;
  #explanations = null;
  #running = null;
  #error = null;
  // The head whose map is shown, or awaited.
  #head = null;
  #opacity = 80;
  #buttons = new Map();
  #element;
  #status;
  #slider;
  #overlay = null;

  // `explain(signal)` returns the explanations of all heads. It is called when the first map is wanted.
  constructor(frame, explain) {
    this.#frame = frame;
    this.#explain = explain;
  }

  drop() {
    this.#running?.abort();
  }

  // The controls for these heads, in the page's language.
  render(heads) {
    this.#buttons = new Map(heads.map((head) => [head, this.#makeButton(head)]));
    this.#slider = this.#makeSlider();
    this.#status = make("div", { className: "note", attributes: { role: "status" } });
    const title = make("span", { className: "title", textContent: say("showWhere"), attributes: { "aria-hidden": "true" } });
    const group = { role: "group", "aria-label": say("showWhere") };
    const buttons = make("div", { className: "toggles", attributes: group }, title, ...this.#buttons.values());
    this.#element = make("div", { className: "maps", hidden: heads.length === 0 }, buttons, this.#slider, this.#status);
    this.#update();
    return this.#element;
  }

  #makeButton(head) {
    const attributes = { "aria-label": `${say("showWhere")}: ${headName(head)}` };
    const button = make("button", { type: "button", textContent: headName(head), dataset: { head }, attributes });
    button.addEventListener("click", () => this.#toggle(head));
    return button;
  }

  #makeSlider() {
    const slider = make("input", { type: "range", min: 0, max: 100, step: 5, value: this.#opacity });
    slider.addEventListener("input", () => {
      this.#opacity = slider.value;
      this.#fade();
    });
    return make("label", { className: "opacity" }, make("span", { textContent: say("opacity") }), slider);
  }

  #toggle(head) {
    this.#head = this.#head === head ? null : head;
    this.#error = null;
    if (this.#head === null) {
      this.#running?.abort();
      this.#running = null;
    } else if (!this.#explanations && !this.#running) this.#load();
    this.#update();
  }

  async #load() {
    const running = new AbortController();
    this.#running = running;
    try {
      this.#explanations = await this.#explain(running.signal);
    } catch (error) {
      if (running.signal.aborted) return;
      this.#error = error instanceof Refusal ? error : new Refusal({ kind: "network" });
      this.#head = null;
    }
    this.#running = null;
    this.#update();
  }

  #update() {
    const found = this.#explanations?.[this.#head];
    if (this.#explanations && this.#head !== null && !found) {
      this.#error = new Refusal({ kind: "notExplained" });
      this.#head = null;
    }
    for (const [head, button] of this.#buttons) button.setAttribute("aria-pressed", String(head === this.#head));
    this.#element.setAttribute("aria-busy", String(this.#running !== null));
    this.#slider.hidden = !found;
    this.#overlay?.remove();
    this.#overlay = found ? draw(found) : null;
    if (found) {
      this.#frame.append(this.#overlay);
      this.#fade();
    }
    this.#status.replaceChildren(...this.#tell(found));
  }

  #tell(found) {
    if (this.#error) return complain(this.#error);
    if (this.#running) return [say("explaining")];
    return found ? [say("bright", { labels: found.labels.map(labelName).join(", ") })] : [];
  }

  #fade() {
    // Through the object model: the policy allows no style attributes.
    this.#overlay.style.opacity = this.#opacity / 100;
  }
}

// The map in the upright photo's own pixels. By default, an SVG is scaled as `object-fit: contain` scales the preview.
function draw({ box, photo, overlay }) {
  const place = { x: box.left, y: box.top, width: box.width, height: box.height, preserveAspectRatio: "none" };
  const map = makeSvg("image", { href: overlay, ...place });
  const attributes = { class: "map", viewBox: `0 0 ${photo.width} ${photo.height}`, "aria-hidden": "true" };
  return makeSvg("svg", attributes, map);
}
