// All answers as JSON, for the clipboard or a file.

import { make } from "./dom.js";

export function toJson(photos) {
  const entries = [...photos].filter(({ state }) => state === "done" || state === "failed");
  return JSON.stringify(entries.map(entry), null, 2);
}

function entry({ file, answer, error }) {
  return { photo: file.name, ...(answer ?? { error: error.detail ?? error.kind ?? `HTTP ${error.status}` }) };
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text);
  }
}

// Without TLS, browsers hold back the clipboard except on the local host.
function copyOldWay(text) {
  const field = make("textarea", { value: text, className: "unseen", readOnly: true });
  const before = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  before?.focus();
  return copied;
}

export function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
