import { gateway } from "./gateway.js";
import { spawned } from "./spawn.js";
import { triton } from "./triton.js";

export function chooseAnalyzer(name = "gateway", env = process.env) {
  switch (name) {
    case "gateway":
      return gateway({ url: env.GATEWAY_URL, token: env.GATEWAY_TOKEN });
    case "spawn":
      return spawned({ command: env.CAR_ANALYZER });
    case "triton":
      return triton({ url: env.TRITON_URL });
    default:
      throw new Error(`ANALYZER is ${JSON.stringify(name)}; it can be gateway, spawn or triton`);
  }
}
