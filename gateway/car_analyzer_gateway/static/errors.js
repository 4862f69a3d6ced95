// A failure, as a card shows it.

import { make } from "./dom.js";
import { explain } from "./words.js";

export function complain(error) {
  const { text, detail } = explain({ kind: error.kind, status: error.status, message: error.detail });
  const sentence = make("p", { className: "error", textContent: text });
  return detail ? [sentence, make("p", { className: "detail", lang: "en", textContent: detail })] : [sentence];
}
