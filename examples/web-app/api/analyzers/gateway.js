// @ts-check
/** @import { components } from "../gateway" */
import { ask, errorSentence } from "../ask.js";
import { Problem, unreachable } from "../problem.js";

/** @typedef {components["schemas"]["Analysis"]} Analysis */

/**
 * Photos go to `car-analyzer gateway`, whose answers and errors are passed on as they are.
 *
 * @param {{ url?: string, token?: string }} options
 */
export function gateway({ url = "http://localhost:5000", token }) {
  /** @type {Record<string, string>} */
  const headers = token ? { Authorization: `Bearer ${token}` } : {};

  return {
    /**
     * @param {Uint8Array<ArrayBuffer>} photo
     * @param {AbortSignal} signal
     * @returns {Promise<Analysis>}
     */
    async analyze(photo, signal) {
      const body = new FormData();
      body.append("image", new Blob([photo]), "photo");
      const response = await ask(`${url}/analyze`, { method: "POST", headers, body, signal });
      if (response.ok) return response.json();
      throw asProblem(response.status, await errorSentence(response));
    },

    /** @param {AbortSignal} signal */
    async health(signal) {
      const response = await ask(`${url}/health`, { headers, signal });
      if (!response.ok) throw unreachable(await errorSentence(response));
    },
  };
}

/**
 * @param {number} status
 * @param {string | undefined} sentence
 */
function asProblem(status, sentence) {
  if ([400, 413, 503, 504].includes(status)) {
    return new Problem(status, sentence ?? "The gateway did not analyse the photo.");
  }
  // A wrong token or address is this service's fault, not its caller's.
  return new Problem(502, "The gateway failed on this photo.", { cause: { status, sentence } });
}
