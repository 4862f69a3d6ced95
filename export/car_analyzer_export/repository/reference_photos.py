"""Records reference photos with each version: small photos, and the logits that the networks give for them.

`publishing.reference_check` compares the answers of a server with them.
"""

from __future__ import annotations

import hashlib
import io
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from PIL import Image

from ..onnx_model.verify import torch_logits, torch_outputs
from ..pictures import generated
from ..preprocess.photo import Photo
from .versions import REFERENCES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from ..photo_folder import PhotoFolder
    from ..spec import Limits, NetworkPlan, Plan

COUNT = 8
# Small enough to store with every version, large enough to be resized like a photo; smaller only if the limits ask.
_SIDES = (320, 160, 80, 40)
# Accepted difference of a server's logits, as a share of the largest logit (at least 1). Other processors add in
# another order, and GPUs multiply with fewer digits; another network, view or channel order differs by much more.
TOLERANCES = {"fp32": 0.01, "fp16": 0.05, "int8": 0.2}


def record_references(plan: Plan, networks: dict[str, Path], folder: Path, source: PhotoFolder | None) -> None:
    """Writes photos, and the networks' logits for them, computed from the bytes of each photo.

    For fp32 these are PyTorch's logits; for lower precisions those of the converted model, which was compared before.

    Args:
        plan: What is exported.
        networks: Network → its ONNX file.
        folder: The ensemble's version folder; gets `known.json` and `known/`.
        source: Where the photos are taken from; pictures are generated without it.
    """
    (folder / REFERENCES).mkdir()
    photos = []
    expected: dict[str, list[Any]] = {head.name: [] for head, _ in plan.heads()}
    sessions = (
        {}
        if plan.precision == "fp32"
        else {
            name: onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            for name, file in networks.items()
        }
    )
    for number, content in enumerate(_photos(source, plan.limits), start=1):
        photo = Photo(content)
        logits: dict[str, list[float]] = {}
        for network in plan.networks:
            pixels = np.array([network.view.prepare(photo)])
            for head, row in _logits(network, pixels, sessions.get(network.name)).items():
                logits[head] = [float(value) for value in row]
                expected[head].append(row)
        file = f"{REFERENCES}/{number}.jpg"
        (folder / file).write_bytes(content)
        photos.append({"file": file, "sha256": hashlib.sha256(content).hexdigest(), "logits": logits})
    share = TOLERANCES[plan.precision]
    tolerance = {head: share * max(1.0, float(np.abs(rows).max())) for head, rows in expected.items() if rows}
    facts = {"from": "PyTorch" if plan.precision == "fp32" else f"ONNX Runtime, {plan.precision}"}
    text = json.dumps({**facts, "tolerance": tolerance, "photos": photos}, indent=2)
    (folder / f"{REFERENCES}.json").write_text(text + "\n", encoding="utf-8")


def _logits(network: NetworkPlan, pixels: npt.NDArray[np.uint8], session: Any) -> dict[str, npt.NDArray[np.float32]]:
    if session is None:
        outputs = torch_outputs(network, pixels)
        return {head.name: torch_logits(head, outputs)[0] for head in network.heads}
    names = [network.output_name(head) for head in network.heads]
    found = session.run(names, {"pixels": pixels})
    return {head.name: rows[0] for head, rows in zip(network.heads, found, strict=True)}


def _photos(folder: PhotoFolder | None, limits: Limits) -> Iterator[bytes]:
    found = 0
    if folder is not None:
        for content in islice(folder.read(folder.spread(COUNT), lambda photo, _: _encoded(photo.rgb, limits)), COUNT):
            yield content
            found += 1
    for seed in range(COUNT - found):
        yield _encoded(Image.fromarray(generated(seed, (320, 240))), limits)


def _encoded(image: Image.Image, limits: Limits) -> bytes:
    """A small JPEG of a picture, within the limits and without EXIF data."""
    for side in _SIDES:
        small = image.copy()
        small.thumbnail((side, side))
        content = io.BytesIO()
        Image.frombytes("RGB", small.size, small.tobytes()).save(content, "JPEG", quality=90)
        if len(content.getvalue()) <= limits.max_bytes and small.width * small.height <= limits.max_pixels:
            break
    return content.getvalue()
