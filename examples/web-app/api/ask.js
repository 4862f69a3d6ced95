import { unreachable } from "./problem.js";

/** `fetch`, with the error for "nobody listens" told from the one for "too late". */
export async function ask(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (options.signal.aborted) throw error;
    throw unreachable(error);
  }
}

/** The sentence in an answer's `{"error": "..."}`, if there is one. */
export async function errorSentence(response) {
  try {
    return (await response.json()).error;
  } catch {
    return undefined;
  }
}
