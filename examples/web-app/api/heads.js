const UNSURE = "unsure";

/**
 * From logits to labels and confidences.
 *
 * @param heads what the model says about its outputs: head → {output, labels, activation, threshold, positive, unsure}
 * @param tensors output → logits
 * @returns {object} `{cleanliness: "dirty", cleanlinessConfidence: 0.97, ...}`
 */
export function readHeads(heads, tensors) {
  const answer = {};
  for (const [name, head] of Object.entries(heads)) {
    const { label, confidence } = readHead(head, tensors[head.output] ?? []);
    answer[name] = label;
    answer[`${name}Confidence`] = Number(confidence.toFixed(4));
  }
  return answer;
}

function readHead(head, logits) {
  const count = head.activation === "sigmoid" ? 1 : head.labels.length;
  if (logits.length !== count || !logits.every(Number.isFinite)) {
    throw new Error(`${head.output} is [${logits}], and should be ${count} finite numbers`);
  }
  switch (head.activation) {
    case "softmax":
      return chooseOne(head, softmax(logits));
    case "sigmoid":
      return chooseOne({ ...head, threshold: head.threshold ?? 0.5 }, [sigmoid(-logits[0]), sigmoid(logits[0])]);
    case "multilabel":
      return chooseAll(head, logits.map(sigmoid));
    default:
      throw new Error(`unknown activation ${head.activation}`);
  }
}

function chooseOne({ labels, threshold, positive = labels.at(-1), unsure }, probabilities) {
  const likeliest = probabilities.indexOf(Math.max(...probabilities));
  const index = labels.indexOf(positive);
  const probability = probabilities[index];
  if (unsure && unsure[0] < probability && probability < unsure[1]) {
    return { label: UNSURE, confidence: probabilities[likeliest] };
  }
  // A threshold is for two labels: the other one is the only other one.
  const chosen = threshold == null ? likeliest : probability >= threshold ? index : 1 - index;
  return { label: labels[chosen], confidence: probabilities[chosen] };
}

function chooseAll({ labels, threshold }, probabilities) {
  const isChosen = probabilities.map((probability) => probability >= (threshold ?? 0.5));
  return {
    label: labels.filter((_, index) => isChosen[index]),
    // As sure as of the least sure yes or no.
    confidence: Math.min(...probabilities.map((p, index) => (isChosen[index] ? p : 1 - p))),
  };
}

export function softmax(logits) {
  const top = Math.max(...logits); // taken off first, so that none overflows
  const weights = logits.map((logit) => Math.exp(logit - top));
  const total = weights.reduce((sum, weight) => sum + weight);
  return weights.map((weight) => weight / total);
}

export function sigmoid(logit) {
  return 1 / (1 + Math.exp(-logit));
}
