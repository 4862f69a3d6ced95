import { unreachable } from "./problem.js";

/** `fetch`, with the error for "nobody listens" told from the one that the signal was aborted with. */
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
