/**
 * Triton's binary answer: a JSON head of `headLength` bytes, then the outputs' values in the order that it names.
 *
 * @returns {{version: string, tensors: Record<string, number[]>}}
 */
export function decodeAnswer(body, headLength) {
  const head = JSON.parse(body.toString("utf8", 0, headLength));
  const tensors = {};
  let start = headLength;
  for (const { name, datatype, parameters } of head.outputs) {
    const end = start + parameters.binary_data_size;
    if (end > body.length) throw new RangeError(`the answer ends within ${name}`);
    if (datatype === "FP32") tensors[name] = readFloats(body.subarray(start, end));
    start = end;
  }
  return { version: head.model_version, tensors };
}

function readFloats(bytes) {
  // Not a Float32Array on the bytes: they need not be aligned, and FP32 here is little-endian on any machine.
  return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(index * 4));
}
