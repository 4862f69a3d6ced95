// One photo to the service, and its answer or why there is none.

import { isTurned } from "./orientation.js";

export class Refusal extends Error {
  constructor({ kind = null, status = 0, message = null, retryAfter = null }) {
    super(message ?? kind);
    Object.assign(this, { kind, status, detail: message, retryAfter });
  }
}

// The answer, its id, the model that gave it, and whether the networks saw the photo otherwise than the page shows it.
export async function analyze(file, token, signal) {
  const { content, headers } = await upload("analyze", file, token, signal);
  const asStored = headers.get("Exif-Rotation") === "false" && (await isTurned(file));
  const model = { version: headers.get("Model-Version"), exportId: headers.get("Export-Id") };
  return { answer: content, id: headers.get("X-Request-ID"), model, asStored };
}

// Each head's explanation: where in the photo its answer comes from. The id tells the service that it has seen the photo.
export async function explanations(file, id, token, signal) {
  const { content } = await upload("analyze?explain=1", file, token, signal, id ? { "X-Request-ID": id } : {});
  if (!content.explanations) throw new Refusal({ kind: "notExplained" });
  return content.explanations;
}

// What can be said about the answer with this id: head to {label, labels}.
export async function choices(id, token, signal) {
  const { content } = await send(`feedback?request_id=${encodeURIComponent(id)}`, {}, token, signal);
  if (!content.heads) throw new Refusal({ kind: "unreadable" });
  return content.heads;
}

// Which labels are true of the photo with this id.
export async function correct(id, labels, token, signal) {
  const body = JSON.stringify({ request_id: id, labels });
  await send("feedback", { method: "POST", body, headers: { "Content-Type": "application/json" } }, token, signal);
}

function upload(url, file, token, signal, headers = {}) {
  const body = new FormData();
  body.append("image", file, file.name);
  return send(url, { method: "POST", body, headers }, token, signal);
}

async function send(url, request, token, signal) {
  const headers = { ...request.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  let body;
  try {
    response = await fetch(url, { ...request, headers, signal });
    body = await response.text();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal({ kind: "network" });
  }
  const content = parse(body);
  if (response.ok && (content || response.status === 204)) return { content, headers: response.headers };
  if (response.ok) throw new Refusal({ kind: "unreadable" });
  if (content?.code === "model.not_explainable") throw new Refusal({ kind: "notExplainable" });
  const message = typeof content?.error === "string" ? content.error : null;
  throw new Refusal({ status: response.status, message, retryAfter: seconds(response.headers.get("Retry-After")) });
}

// What the service tells about its models; null if it is not ready.
export async function health(token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const response = await fetch("health", { headers });
    return response.ok ? parse(await response.text()) : null;
  } catch {
    return null;
  }
}

function parse(text) {
  try {
    const content = JSON.parse(text);
    return content !== null && typeof content === "object" && !Array.isArray(content) ? content : null;
  } catch {
    return null;
  }
}

// Retry-After is a number of seconds, or from a proxy perhaps a date.
function seconds(header) {
  if (!header) return null;
  const number = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(number) ? Math.max(0, number) : null;
}
