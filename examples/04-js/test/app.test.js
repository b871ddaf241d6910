import assert from "node:assert/strict";
import { test } from "node:test";

import { app } from "../src/app.js";

test("a proven caller is greeted by name", async () => {
  const headers = { "x-vedette-subject": "alice" };
  const answer = await app.request("/hello-js", { headers }, { GREETING: "Welcome" });
  assert.equal(await answer.text(), "Welcome, alice!\n");
});

test("a caller without a token is a stranger", async () => {
  const answer = await app.request("/hello-js");
  assert.equal(await answer.text(), "Hello, stranger!\n");
});

test("what is sent comes back", async () => {
  const answer = await app.request("/hello-js/echo", { method: "POST", body: '{"a":1}' });
  assert.deepEqual(await answer.json(), { received: { a: 1 } });
});
