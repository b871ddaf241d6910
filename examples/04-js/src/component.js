// hello-js: hands each request to the app. The engine in the component turns it into a fetch event.

import { getEnvironment } from "wasi:cli/environment@0.2.10";

import { app } from "./app.js";

addEventListener("fetch", (event) => {
  const variables = Object.fromEntries(getEnvironment());
  event.respondWith(app.fetch(event.request, variables));
});
