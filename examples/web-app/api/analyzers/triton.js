import { ask, errorSentence } from "../ask.js";
import { decodeAnswer } from "../decode.js";
import { readHeads } from "../heads.js";
import { Problem, unreachable } from "../problem.js";

const HEADER_LENGTH = "Inference-Header-Content-Length";

/** Photos go straight to Triton, as the whole body of a request; logits come back and are read here. */
export function triton({ url = "http://localhost:8000" }) {
  const model = `${url}/v2/models/car_analyzer`;
  const headsByVersion = new Map();

  return {
    async analyze(photo, signal) {
      const start = performance.now();
      const response = await ask(`${model}/infer`, {
        method: "POST",
        headers: { [HEADER_LENGTH]: "0", "Content-Type": "application/octet-stream" },
        body: photo,
        signal,
      });
      if (!response.ok) throw asProblem(response.status, await errorSentence(response));
      const body = Buffer.from(await response.arrayBuffer());
      const { version, tensors } = decodeAnswer(body, Number(response.headers.get(HEADER_LENGTH)));
      const processingTime = Number((performance.now() - start).toFixed(1));
      return { ...readHeads(await heads(version, signal), tensors), processingTime };
    },

    async health(signal) {
      const response = await ask(`${model}/ready`, { signal });
      if (!response.ok) throw unreachable(`${model} is not ready`);
    },
  };

  /** What the outputs mean, which the model itself says; another version may say otherwise. */
  async function heads(version, signal) {
    if (!headsByVersion.has(version)) {
      const response = await ask(`${model}/versions/${version}/config`, { signal });
      if (!response.ok) throw asProblem(response.status, await errorSentence(response));
      const config = await response.json();
      headsByVersion.set(version, JSON.parse(config.parameters.heads.string_value));
    }
    return headsByVersion.get(version);
  }
}

function asProblem(status, sentence = "") {
  if (status === 429 || status === 503 || sentence.includes("unknown model")) return unreachable({ status, sentence });
  // Triton puts the ensemble's name in front of what a step said.
  if (status === 400 && sentence) return new Problem(400, sentence.replace(/^in ensemble '[^']*', /, ""));
  return new Problem(502, "Triton failed on this photo.", { cause: { status, sentence } });
}
