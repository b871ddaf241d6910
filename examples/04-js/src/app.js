// What the function answers. Plain Hono without Wasm, so its tests run in Node.

import { Hono } from "hono";

/** Set by the edge from a verified token; no client can set it. */
const SUBJECT = "x-vedette-subject";

/** The bindings `c.env` are the variables that `env` in vedette.yaml sets. */
export const app = new Hono().basePath("/hello-js");

app.get("/", (c) => {
  const subject = c.req.header(SUBJECT);
  console.log(`greeting ${subject ?? "somebody without a token"}`);
  return c.text(`${c.env?.GREETING ?? "Hello"}, ${subject ?? "stranger"}!\n`);
});

app.post("/echo", async (c) => c.json({ received: await c.req.json() }));
