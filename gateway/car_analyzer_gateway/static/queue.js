// Photos that wait their turn: few are sent at once, busy times are waited out, all of it can be cancelled.

import { Refusal, analyze } from "./api.js";

const AT_ONCE = 4;
const ATTEMPTS = 6;
const LONGEST_WAIT = 60;

export class Queue {
  #waiting = [];
  #running = new Map();
  #changed;
  #tokens;

  // `changed(photo)` is called whenever a photo's state is another; `tokens` is a `Tokens`.
  constructor(changed, tokens) {
    this.#changed = changed;
    this.#tokens = tokens;
  }

  get busy() {
    return this.#running.size + this.#waiting.length > 0;
  }

  add(photos) {
    for (const photo of photos) this.#set(photo, { state: "waiting", error: null, answer: null });
    this.#waiting.push(...photos);
    this.#next();
  }

  remove(photo) {
    this.#waiting = this.#waiting.filter((other) => other !== photo);
    this.#running.get(photo)?.abort();
  }

  cancel() {
    const waiting = this.#waiting.splice(0);
    for (const controller of this.#running.values()) controller.abort();
    for (const photo of waiting) this.#set(photo, { state: "cancelled" });
  }

  #next() {
    while (this.#running.size < AT_ONCE && this.#waiting.length) this.#run(this.#waiting.shift());
  }

  async #run(photo) {
    const controller = new AbortController();
    this.#running.set(photo, controller);
    let outcome;
    try {
      outcome = { state: "done", ...(await this.#ask(photo, controller.signal)) };
    } catch (error) {
      if (controller.signal.aborted) outcome = { state: "cancelled" };
      else outcome = { state: "failed", error: error instanceof Refusal ? error : new Refusal({ kind: "network" }) };
    }
    this.#running.delete(photo);
    this.#next();
    this.#set(photo, outcome);
  }

  async #ask(photo, signal) {
    for (let attempt = 1; ; ) {
      this.#set(photo, { state: "sending" });
      const token = this.#tokens.current;
      try {
        return await analyze(photo.file, token, signal);
      } catch (error) {
        if (error.status === 401) {
          this.#set(photo, { state: "locked" });
          await this.#tokens.replace(token, signal);
        } else if (error.status === 503 && attempt < ATTEMPTS) {
          const wait = Math.min(LONGEST_WAIT, error.retryAfter ?? 2 ** attempt);
          attempt += 1;
          this.#set(photo, { state: "retrying", seconds: Math.ceil(wait) });
          // Not all at the same moment, or they would all be too many again.
          await sleep(wait * 1000 + Math.random() * 500, signal);
        } else throw error;
      }
    }
  }

  #set(photo, facts) {
    Object.assign(photo, facts);
    this.#changed(photo);
  }
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
