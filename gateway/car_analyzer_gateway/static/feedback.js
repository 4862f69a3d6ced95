// What people say about an answer, for a service that collects it: "right", or "wrong: it is …".

import { Refusal } from "./api.js";
import { make } from "./dom.js";
import { complain } from "./errors.js";
import { headName, labelName, say } from "./words.js";

export class Feedback {
  #choose;
  #send;
  #heads = [];
  #element = null;
  #running = null;
  #error = null;
  // Each head's labels, while somebody corrects the answer.
  #choices = null;
  #thanked = false;

  // `choose(signal)` returns each head's labels, and `send(labels, signal)` takes the true label of some heads.
  constructor(choose, send) {
    this.#choose = choose;
    this.#send = send;
  }

  drop() {
    this.#running?.abort();
  }

  // The controls for these heads of an answer, in the page's language.
  render(heads) {
    this.#heads = heads;
    this.#element = make("div", { className: "feedback" });
    this.#update();
    return this.#element;
  }

  #update() {
    const hadFocus = this.#element.contains(document.activeElement);
    const status = make("div", { className: "note", attributes: { role: "status" } });
    status.append(...(this.#error ? complain(this.#error) : this.#thanked ? [say("thanks")] : []));
    this.#element.setAttribute("aria-busy", String(this.#running !== null));
    this.#element.replaceChildren(this.#choices ? this.#form() : this.#question(), status);
    if (hadFocus) this.#element.querySelector("select, button")?.focus();
  }

  #question() {
    const title = make("span", { className: "title", textContent: say("isRight"), attributes: { "aria-hidden": "true" } });
    const group = { role: "group", "aria-label": say("isRight") };
    const known = Object.fromEntries(this.#heads.filter(({ labels }) => labels[0] !== "unsure").map(said));
    const right = this.#button("right", () => this.#run(async (signal) => this.#say(known, signal)));
    right.hidden = Object.keys(known).length === 0;
    const wrong = this.#button("wrong", () =>
      this.#run(async (signal) => {
        this.#choices = await this.#choose(signal);
        this.#thanked = false;
      }),
    );
    return make("div", { className: "toggles", attributes: group }, title, right, wrong);
  }

  #form() {
    const fields = Object.entries(this.#choices).map(([head, choices]) => this.#field(head, choices));
    const send = make("button", { textContent: say("sendFeedback") });
    const close = this.#button("close", () => {
      this.#choices = null;
      this.#update();
    });
    const form = make("form", {}, ...fields.map(({ element }) => element), make("div", { className: "toggles" }, send, close));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const chosen = Object.fromEntries(fields.map(({ head, read }) => [head, read()]).filter(([, label]) => label !== ""));
      this.#run(async (signal) => this.#say(chosen, signal));
    });
    return form;
  }

  #field(head, { label, labels }) {
    const title = make("span", { textContent: headName(head) });
    if (Array.isArray(label)) {
      const boxes = labels.map((name) => make("input", { type: "checkbox", value: name, checked: label.includes(name) }));
      const options = boxes.map((box) => make("label", {}, box, labelName(box.value)));
      const group = { role: "group", "aria-label": headName(head) };
      const element = make("div", { className: "choice", attributes: group }, title, make("div", {}, ...options));
      return { head, element, read: () => boxes.filter(({ checked }) => checked).map(({ value }) => value) };
    }
    const options = labels.map((name) => make("option", { value: name, textContent: labelName(name), selected: name === label }));
    const unknown = make("option", { value: "", textContent: say("cannotTell"), selected: !labels.includes(label) });
    const select = make("select", {}, unknown, ...options);
    return { head, element: make("label", { className: "choice" }, title, select), read: () => select.value };
  }

  #button(key, act) {
    const button = make("button", { type: "button", textContent: say(key), dataset: { feedback: key } });
    button.addEventListener("click", act);
    return button;
  }

  async #say(labels, signal) {
    if (Object.keys(labels).length) await this.#send(labels, signal);
    this.#choices = null;
    this.#thanked = Object.keys(labels).length > 0;
  }

  async #run(work) {
    if (this.#running) return;
    const running = new AbortController();
    this.#running = running;
    this.#error = null;
    this.#update();
    try {
      await work(running.signal);
    } catch (error) {
      if (running.signal.aborted) return;
      this.#error = error instanceof Refusal ? error : new Refusal({ kind: "network" });
      this.#choices = null;
    }
    this.#running = null;
    this.#update();
  }
}

// A head that can have several labels has a list of them, in feedback as in the answer.
const said = ({ name, labels, several }) => [name, several ? labels : labels[0]];
