// @ts-check
/** @import { components } from "../../api/gateway" */
/** @typedef {components["schemas"]["Analysis"]} Analysis */

/**
 * Sends a photo to the API, which answers as the gateway does. Throws an error with a sentence for the user.
 *
 * @param {File} photo
 * @param {AbortSignal} signal
 * @returns {Promise<Analysis>}
 */
export async function analyze(photo, signal) {
  const body = new FormData();
  body.append("image", photo);
  const response = await fetch("/api/analyze", { method: "POST", body, signal });
  // A proxy whose API is down answers with no JSON.
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? "The service cannot be reached; try again in a moment.");
  return answer;
}
