// Tells those who listen rather than look: each verdict while photos are few, and how it went when they are many.

import { heads } from "./answer.js";
import { explain, headName, labelName, say } from "./words.js";

const FEW = 4;
const GOING = new Set(["waiting", "sending", "retrying", "locked"]);

export class Announcer {
  #region;
  #sentences = [];
  #timer = null;

  constructor(region) {
    this.#region = region;
  }

  tell(photo, all) {
    if (all.length <= FEW) this.say(describe(photo));
    else if (!all.some(({ state }) => GOING.has(state))) {
      const failed = all.filter(({ state }) => state === "failed").length;
      this.say(say(failed ? "finished" : "progress", { done: all.length, total: all.length, failed }));
    }
  }

  // What comes within a moment is said together: a later text would cut off an earlier one.
  say(sentence) {
    this.#sentences.push(sentence);
    this.#timer ??= setTimeout(() => {
      this.#region.textContent = this.#sentences.join(" ");
      this.#sentences = [];
      this.#timer = null;
    }, 300);
  }
}

function describe({ file, state, answer, error }) {
  if (state === "cancelled") return `${file.name}: ${say("cancelled")}.`;
  if (state === "failed") {
    return `${file.name}: ${explain({ kind: error.kind, status: error.status, message: error.detail }).text}`;
  }
  const said = heads(answer).map(({ name, labels }) => `${headName(name)} – ${labels.map(labelName).join(", ")}`);
  return `${file.name}: ${said.join("; ")}.`;
}
