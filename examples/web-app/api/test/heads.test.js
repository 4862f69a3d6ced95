import assert from "node:assert/strict";
import { test } from "node:test";

import { readHeads, sigmoid, softmax } from "../heads.js";

const SOFTMAX = { output: "logits", labels: ["intact", "damaged"], activation: "softmax", threshold: null };

function read(head, logits) {
  const { condition, conditionConfidence } = readHeads({ condition: head }, { logits });
  return [condition, conditionConfidence];
}

test("softmax and sigmoid do not overflow", () => {
  assert.deepEqual(softmax([1000, 1000]), [0.5, 0.5]);
  assert.deepEqual(softmax([-1000, 0]), [0, 1]);
  assert.deepEqual([-1000, 0, 1000].map(sigmoid), [0, 0.5, 1]);
});

test("the likeliest label is chosen, and its confidence has four digits", () => {
  assert.deepEqual(read(SOFTMAX, [0, 1]), ["damaged", 0.7311]);
  assert.deepEqual(read(SOFTMAX, [1, 0]), ["intact", 0.7311]);
});

test("a threshold is about the positive label, which is the last one unless the model says otherwise", () => {
  assert.deepEqual(read({ ...SOFTMAX, threshold: 0.8 }, [0, 1]), ["intact", 0.2689]);
  assert.deepEqual(read({ ...SOFTMAX, threshold: 0.2, positive: "intact" }, [0, 1]), ["intact", 0.2689]);
});

test("between the bounds of `unsure` the answer is unsure", () => {
  const head = { ...SOFTMAX, unsure: [0.3, 0.75] };
  assert.deepEqual(read(head, [0, 1]), ["unsure", 0.7311]);
  assert.deepEqual(read(head, [0, 2]), ["damaged", 0.8808]);
});

test("one logit for two labels", () => {
  const head = { ...SOFTMAX, activation: "sigmoid" };
  assert.deepEqual(read(head, [-1]), ["intact", 0.7311]);
  assert.deepEqual(read(head, [1]), ["damaged", 0.7311]);
});

test("labels that do not exclude each other are a list", () => {
  const head = { output: "logits", labels: ["dent", "scratch", "rust"], activation: "multilabel", threshold: null };
  assert.deepEqual(read(head, [2, -3, 1]), [["dent", "rust"], 0.7311]);
  assert.deepEqual(read(head, [-2, -3, -1]), [[], 0.7311]);
});

test("logits that do not fit the labels are refused", () => {
  assert.throws(() => read(SOFTMAX, [1, 2, 3]), /should be 2 finite numbers/);
  assert.throws(() => read(SOFTMAX, [1, NaN]), /should be 2 finite numbers/);
  assert.throws(() => readHeads({ condition: SOFTMAX }, {}), /should be 2 finite numbers/);
});
