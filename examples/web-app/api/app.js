import express from "express";
import multer from "multer";

import { Problem } from "./problem.js";

const MAX_PHOTO_BYTES = 20_000_000;

const upload = multer({
  storage: multer.memoryStorage(),
  limits: { files: 1, fileSize: MAX_PHOTO_BYTES },
}).single("image");

/**
 * The API on top of any analyzer, an object with `analyze(photo, signal)` and `health(signal)`, which gets
 * `timeout` milliseconds for an answer.
 */
export function createApp(analyzer, { timeout }) {
  const app = express();
  app.disable("x-powered-by");

  app.post("/api/analyze", receivePhoto, async (request, response) => {
    response.json(await analyzer.analyze(request.file.buffer, limit(response, timeout)));
  });

  app.get("/api/health", async (request, response) => {
    await analyzer.health(limit(response, timeout));
    response.json({ status: "OK" });
  });

  app.use(() => {
    throw new Problem(404, "There is nothing at this address.");
  });

  // Express knows an error handler by its four parameters.
  app.use((error, request, response, next) => {
    if (response.destroyed) return; // the caller hung up
    if (response.headersSent) return next(error);
    const problem = asProblem(error);
    if (problem.status >= 500) console.error(error);
    if (problem.status === 503) response.set("Retry-After", "1");
    response.status(problem.status).json({ error: problem.message });
  });

  return app;
}

function receivePhoto(request, response, next) {
  upload(request, response, (error) => {
    if (error?.code === "LIMIT_FILE_SIZE") {
      return next(new Problem(413, "The photo is too large; at most 20 MB are accepted."));
    }
    if (error || !request.file?.size) {
      return next(new Problem(400, "Send one photo in the form field `image`.", { cause: error }));
    }
    next();
  });
}

/**
 * A signal that aborts when the time is up, and when the caller hangs up: nobody waits for the answer any more.
 * (Node 20 may collect `AbortSignal.any([AbortSignal.timeout(...), ...])` as garbage before it fires.)
 */
function limit(response, timeout) {
  const controller = new AbortController();
  const late = new Problem(504, "There was no answer in time; try again.");
  const timer = setTimeout(() => controller.abort(late), timeout);
  response.once("close", () => {
    clearTimeout(timer);
    controller.abort();
  });
  return controller.signal;
}

function asProblem(error) {
  if (error instanceof Problem) return error;
  return new Problem(500, "Something went wrong here.");
}
