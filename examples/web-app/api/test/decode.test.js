import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeAnswer } from "../decode.js";

function encode(outputs, extra = {}) {
  const head = {
    model_name: "car_analyzer",
    model_version: "3",
    outputs: outputs.map(([name, values]) => ({
      name,
      datatype: "FP32",
      shape: [1, values.length],
      parameters: { binary_data_size: values.length * 4 },
    })),
    ...extra,
  };
  const text = Buffer.from(JSON.stringify(head));
  const floats = outputs.flatMap(([, values]) => values);
  const numbers = Buffer.alloc(floats.length * 4);
  floats.forEach((value, index) => numbers.writeFloatLE(value, index * 4));
  return { body: Buffer.concat([text, numbers]), headLength: text.length };
}

test("outputs are read in the order of the head, wherever the values start", () => {
  for (const padding of ["", "a", "ab", "abc", "é"]) {
    const { body, headLength } = encode([["b", [1.5, -2]], ["a", [0.25, 8, 1e-3]]], { id: padding });
    const { version, tensors } = decodeAnswer(body, headLength);
    assert.equal(version, "3");
    assert.deepEqual(tensors, { b: [1.5, -2], a: [0.25, 8, Math.fround(1e-3)] });
  }
});

test("an answer that was cut short is no answer", () => {
  const { body, headLength } = encode([["a", [1, 2]]]);
  assert.throws(() => decodeAnswer(body.subarray(0, -1), headLength), /ends within a/);
  assert.throws(() => decodeAnswer(body, headLength - 1), SyntaxError);
});
