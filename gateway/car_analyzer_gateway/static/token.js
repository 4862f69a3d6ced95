// The bearer token, where the service asks for one: asked for once for all photos that wait for it.

import { say } from "./words.js";

const KEPT = "token";

export class Tokens {
  #form;
  #label;
  #current = null;
  #asked = null;
  #waiting = 0;

  constructor(form) {
    this.#form = form;
    this.#label = form.querySelector("label");
    try {
      this.#current = sessionStorage.getItem(KEPT);
    } catch {
      // Then it is asked for again each time.
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take(form.querySelector("input"));
    });
  }

  get current() {
    return this.#current;
  }

  // Wait for another token than `refused`.
  replace(refused, signal) {
    if (this.#current !== refused) return Promise.resolve();
    this.#asked ??= this.#ask(refused !== null);
    this.#waiting += 1;
    const replaced = new Promise((resolve, reject) => {
      this.#asked.promise.then(resolve);
      signal.addEventListener("abort", () => reject(signal.reason));
    });
    return replaced.finally(() => {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#hide();
    });
  }

  #hide() {
    this.#form.hidden = true;
    this.#asked = null;
  }

  #ask(wasWrong) {
    this.#label.dataset.text = wasWrong ? "tokenWrong" : "tokenNeeded";
    this.#label.textContent = say(this.#label.dataset.text);
    this.#form.hidden = false;
    this.#form.querySelector("input").focus();
    let settle;
    const promise = new Promise((resolve) => {
      settle = resolve;
    });
    return { promise, settle };
  }

  #take(input) {
    this.#current = input.value;
    input.value = "";
    try {
      sessionStorage.setItem(KEPT, this.#current);
    } catch {
      // It holds until the page is left.
    }
    const asked = this.#asked;
    this.#hide();
    asked?.settle();
  }
}
