import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { createApp } from "../app.js";

const ANSWER = { cleanliness: "dirty", cleanlinessConfidence: 0.97 };

let server, url, behave;

before(async () => {
  const analyzer = { analyze: (photo, signal) => behave(photo, signal), health: async () => {} };
  server = createApp(analyzer, { timeout: 200 }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  url = `http://127.0.0.1:${server.address().port}`;
});

after(() => server.close());

async function send(bytes, field = "image") {
  const body = new FormData();
  body.append(field, new Blob([bytes]), "car.jpg");
  const response = await fetch(`${url}/api/analyze`, { method: "POST", body });
  return [response.status, await response.json()];
}

test("the photo's bytes arrive, and the answer is passed on", async () => {
  let received;
  behave = async (photo) => ((received = photo), ANSWER);
  assert.deepEqual(await send("bytes"), [200, ANSWER]);
  assert.equal(received.toString(), "bytes");
});

test("20 MB are accepted, and a byte more is not", async () => {
  behave = async () => ANSWER;
  const [status] = await send(new Uint8Array(20_000_000));
  assert.equal(status, 200);
  const [tooLarge, { error }] = await send(new Uint8Array(20_000_001));
  assert.equal(tooLarge, 413);
  assert.match(error, /at most 20 MB/);
});

test("a form without a photo is refused", async () => {
  for (const [bytes, field] of [["bytes", "photo"], ["", "image"]]) {
    const [status, { error }] = await send(bytes, field);
    assert.equal(status, 400);
    assert.match(error, /`image`/);
  }
  const response = await fetch(`${url}/api/analyze`, { method: "POST", body: "no form" });
  assert.equal(response.status, 400);
});

test("an answer that does not come is a 504", async () => {
  behave = (photo, signal) =>
    new Promise((resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const [status] = await send("bytes");
  assert.equal(status, 504);
});

test("other addresses answer 404 with a sentence", async () => {
  const response = await fetch(`${url}/elsewhere`);
  assert.equal(response.status, 404);
  assert.ok((await response.json()).error);
});
