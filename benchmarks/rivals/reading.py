"""What every rival does with a photo: the preprocessing that the networks were trained with."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 224
HEADS = ("cleanliness", "condition")
LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}


def pixels(photo: bytes) -> Any:
    """Photo bytes to uint8 [224, 224, 3]."""
    image = Image.open(io.BytesIO(photo)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)


def sessions(repository: Path | None = None) -> dict[str, Any]:
    """Each head's ONNX Runtime session; one thread each, as there is a worker for each core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    repository = repository or Path(os.environ["BENCHMARK_REPOSITORY"])
    return {
        head: onnxruntime.InferenceSession(repository / head / "1" / "model.onnx", options, ["CPUExecutionProvider"])
        for head in HEADS
    }


def infer(loaded: dict[str, Any], batch: Any) -> dict[str, Any]:
    """uint8 [batch, 224, 224, 3] to each head's logits [batch, 2]."""
    return {head: session.run(["logits"], {"pixels": batch})[0] for head, session in loaded.items()}


def answers(logits: dict[str, Any]) -> list[dict[str, Any]]:
    """Each head's logits [batch, 2] to the JSON for each photo."""
    return [_answer(dict(zip(logits, rows, strict=True))) for rows in zip(*logits.values(), strict=True)]


def analyze(loaded: dict[str, Any], photo: bytes) -> dict[str, Any]:
    """Photo bytes to the JSON for it."""
    return answers(infer(loaded, pixels(photo)[None]))[0]


def _answer(logits: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for head, row in logits.items():
        shares = np.exp(row - row.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        result[head] = LABELS[head][best]
        result[f"{head}Confidence"] = float(shares[best])
    return result
