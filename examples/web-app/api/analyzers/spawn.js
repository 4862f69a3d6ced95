import { spawn } from "node:child_process";

import { Problem, unreachable } from "../problem.js";

const FAILED = 1;
const UNREACHABLE = 3;

/** Each photo is given to a `car-analyzer` process of its own, which asks the server in $CAR_ANALYZER_URL. */
export function spawned({ command = "car-analyzer" }) {
  return {
    async analyze(photo, signal) {
      // Its own timeout is longer than ours, which can be told from a bad photo.
      const { code, output } = await run(command, ["analyze", "-", "--timeout", "120"], photo, signal);
      if (code === UNREACHABLE) throw unreachable();
      const answer = parse(output);
      if (code === FAILED && answer.error) throw new Problem(400, answer.error);
      if (code !== 0) throw new Problem(502, "The analyzer failed on this photo.", { cause: { code } });
      return answer;
    },

    async health(signal) {
      const { code, output } = await run(command, ["health"], "", signal);
      if (code !== 0) throw unreachable(output);
    },
  };
}

function run(command, args, input, signal) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"], signal });
    const chunks = [];
    child.stdout.on("data", (chunk) => chunks.push(chunk));
    // A child that ends early closes its end; its exit code says why.
    child.stdin.on("error", () => {});
    child.once("error", (error) => reject(signal.aborted ? signal.reason : error));
    child.once("close", (code) => resolve({ code, output: Buffer.concat(chunks).toString() }));
    child.stdin.end(input);
  });
}

function parse(output) {
  try {
    return JSON.parse(output);
  } catch (cause) {
    throw new Problem(502, "The analyzer's answer cannot be read.", { cause });
  }
}
