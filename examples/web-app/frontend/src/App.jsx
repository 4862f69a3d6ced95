import { useRef, useState } from "react";

import { analyze } from "./analyze.js";
import { PhotoPicker } from "./PhotoPicker.jsx";
import { Verdicts } from "./Verdicts.jsx";

const NOTHING = { status: "idle" };

export function App() {
  const [photo, setPhoto] = useState(null);
  const [result, setResult] = useState(NOTHING);
  const running = useRef(null);

  async function check(file) {
    // Only the latest photo's answer is of interest.
    running.current?.abort();
    const controller = new AbortController();
    running.current = controller;
    if (photo) URL.revokeObjectURL(photo.url);
    setPhoto({ url: URL.createObjectURL(file), name: file.name });
    setResult({ status: "running" });
    try {
      const answer = await analyze(file, controller.signal);
      if (!controller.signal.aborted) setResult({ status: "done", answer });
    } catch (error) {
      if (!controller.signal.aborted) setResult({ status: "failed", message: error.message });
    }
  }

  return (
    <main>
      <h1>Car check</h1>
      <p className="lead">Clean or dirty, intact or damaged: one photo tells.</p>
      <PhotoPicker photo={photo} onPick={check} />
      <div role="status">
        {result.status === "running" && <p className="note">Looking at the photo…</p>}
        {result.status === "done" && <Verdicts answer={result.answer} />}
      </div>
      <div role="alert">{result.status === "failed" && <p className="note failed">{result.message}</p>}</div>
    </main>
  );
}
