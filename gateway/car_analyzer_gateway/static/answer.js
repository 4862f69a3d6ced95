// What an answer holds: for any key K with a sibling KConfidence there is a head K.

const MOODS = { clean: "good", intact: "good", dirty: "warn", damaged: "bad", unsure: "unsure" };

export const mood = (label) => (Object.hasOwn(MOODS, label) ? MOODS[label] : "plain");

// [{name, labels, several, confidences}]: a head has one label or a list of several, and a confidence for each or for all.
export function heads(answer) {
  return Object.keys(answer)
    .filter((key) => Object.hasOwn(answer, `${key}Confidence`))
    .map((name) => ({
      name,
      labels: [answer[name]].flat(),
      several: Array.isArray(answer[name]),
      confidences: [answer[`${name}Confidence`]].flat().filter(Number.isFinite).map(limit),
    }));
}

const limit = (share) => Math.min(1, Math.max(0, share));
