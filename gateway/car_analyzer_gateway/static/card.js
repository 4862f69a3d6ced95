// A photo and what is known of it.

import { heads, mood } from "./answer.js";
import { make, makeSvg } from "./dom.js";
import { complain } from "./errors.js";
import { Feedback } from "./feedback.js";
import { Maps } from "./maps.js";
import { forget, preview } from "./preview.js";
import { headName, labelName, milliseconds, percent, say } from "./words.js";

export class Card {
  #photo;
  #frame = make("div", { className: "frame" });
  #remove;
  #name;
  #content = make("div", { className: "content" });
  #again;
  #maps;
  #feedback = null;
  #makeFeedback;
  // The answer that feedback is about.
  #judged = null;

  // `again` and `remove` are called with the photo, and `explain`, `choose` and `correct` with a signal, too: they return
  // explanations, each head's labels, and nothing. `collects()` tells whether the service takes feedback.
  constructor(photo, { again, remove, explain, choose, correct, collects }) {
    this.#photo = photo;
    this.#again = again;
    const take = () => new Feedback((signal) => choose(photo, signal), (labels, signal) => correct(photo, labels, signal));
    this.#makeFeedback = () => (collects() ? take() : null);
    this.#maps = new Maps(this.#frame, (signal) => explain(photo, signal));
    this.#remove = make("button", { type: "button", className: "remove" });
    this.#remove.append(cross());
    this.#remove.addEventListener("click", () => remove(photo));
    this.#name = make("h3", { className: "name", textContent: photo.file.name, title: photo.file.name });
    this.element = make("li", { className: "card" }, this.#frame, this.#remove, this.#name, this.#content);
    this.render();
  }

  // Once it stands in the page.
  show() {
    preview(this.#frame, this.#photo.file);
  }

  drop() {
    forget(this.#frame);
    this.#maps.drop();
    this.#feedback?.drop();
    this.element.remove();
  }

  focus() {
    this.#remove.focus();
  }

  render() {
    const { state, file } = this.#photo;
    const hadFocus = this.#content.contains(document.activeElement);
    this.element.dataset.state = state;
    this.element.setAttribute("aria-busy", String(["sending", "retrying", "locked"].includes(state)));
    this.#remove.setAttribute("aria-label", say("remove", { name: file.name }));
    this.#frame.dataset.note = say("noPreview");
    this.#content.replaceChildren(...this.#parts());
    if (hadFocus) this.focus();
  }

  #parts() {
    const { state, answer, model, asStored, error, seconds } = this.#photo;
    if (state === "done") {
      const found = heads(answer);
      const maps = this.#maps.render(found.map(({ name }) => name));
      if (this.#judged !== answer || !this.#feedback) this.#feedback = this.#makeFeedback();
      this.#judged = answer;
      const feedback = this.#feedback && found.length ? [this.#feedback.render(found)] : [];
      return [...(asStored ? [note("asStored")] : []), describe(answer), maps, ...feedback, ...source(answer, model)];
    }
    if (state === "failed") return [...complain(error), this.#retry()];
    if (state === "cancelled") return [note("cancelled"), this.#retry()];
    return [make("p", { className: "note", textContent: say(state, { seconds }) })];
  }

  #retry() {
    const name = `${say("again")}: ${this.#photo.file.name}`;
    const button = make("button", { type: "button", textContent: say("again"), attributes: { "aria-label": name } });
    button.addEventListener("click", () => this.#again(this.#photo));
    return button;
  }
}

const note = (key) => make("p", { className: "note", textContent: say(key) });

const describe = (answer) => make("dl", { className: "heads" }, ...heads(answer).map(describeHead));

// How long it took, and which model answered.
function source({ processingTime }, { version, exportId }) {
  const took = Number.isFinite(processingTime) ? [milliseconds(processingTime)] : [];
  const text = [...took, ...(version ? [say("model", { version })] : [])].join(" · ");
  return text ? [make("p", { className: "took", textContent: text, title: exportId ?? "" })] : [];
}

function describeHead({ name, labels, confidences }) {
  const pills = labels.map((label) =>
    make("span", { className: "pill", textContent: labelName(label), dataset: { mood: mood(label) } }),
  );
  if (!pills.length) pills.push(make("span", { className: "pill", textContent: say("nothing"), dataset: { mood: "unsure" } }));
  const bars = confidences.map((share, index) => bar(share, mood(labels[index] ?? "unsure")));
  return make(
    "div",
    { className: "head", dataset: { head: name } },
    make("dt", { textContent: headName(name) }),
    make("dd", { className: "pills" }, ...pills),
    ...bars,
  );
}

function bar(share, tone) {
  const fill = make("span", { className: "fill", dataset: { mood: tone } });
  // Through the object model: the policy allows no style attributes.
  fill.style.inlineSize = `${share * 100}%`;
  const track = make("span", { className: "track", attributes: { "aria-hidden": "true" } }, fill);
  const spoken = make("span", { className: "unseen", textContent: `${say("confidence")} ` });
  const value = make("span", { className: "share" }, spoken, percent(share));
  return make("dd", { className: "confidence" }, track, value);
}

function cross() {
  const path = makeSvg("path", { d: "M4 4l8 8M12 4l-8 8" });
  return makeSvg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}
