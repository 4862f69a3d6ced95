"""Photos with known answers that travel with a version, to tell whether a server answers as that version."""

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
from .versions import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from ..photo_folder import PhotoFolder
    from ..spec import Limits, NetworkPlan, Plan

COUNT = 8
# Small enough to keep with every version, large enough to be resized like a photo. Smaller where limits ask for it.
_SIDES = (320, 160, 80, 40)
# How far a server's logits may be off, as a share of the largest logit (at least 1). Other processors add in another
# order, and GPUs multiply with fewer digits; another network, view or order of channels is off by much more.
TOLERANCES = {"fp32": 0.01, "fp16": 0.05, "int8": 0.2}


def write_known(plan: Plan, networks: dict[str, Path], folder: Path, source: PhotoFolder | None) -> None:
    """Writes photos, and what the networks say of them, from the bytes of each photo on.

    fp32: what PyTorch says. Lower precisions: what the converted model says, which was compared with fp32 before.

    Args:
        plan: What is exported.
        networks: Network → its ONNX file.
        folder: Where the photos and `known.json` are to lie.
        source: Where photos are taken from; without it, pictures are generated.
    """
    (folder / KNOWN).mkdir()
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
            view = network.view
            pixels = np.array([view.pixels(photo.upright() if view.exif_rotation else photo.rgb)])
            for head, row in _logits(network, pixels, sessions.get(network.name)).items():
                logits[head] = [float(value) for value in row]
                expected[head].append(row)
        file = f"{KNOWN}/{number}.jpg"
        (folder / file).write_bytes(content)
        photos.append({"file": file, "sha256": hashlib.sha256(content).hexdigest(), "logits": logits})
    share = TOLERANCES[plan.precision]
    tolerance = {head: share * max(1.0, float(np.abs(rows).max())) for head, rows in expected.items() if rows}
    facts = {"from": "PyTorch" if plan.precision == "fp32" else f"ONNX Runtime, {plan.precision}"}
    text = json.dumps({**facts, "tolerance": tolerance, "photos": photos}, indent=2)
    (folder / f"{KNOWN}.json").write_text(text + "\n", encoding="utf-8")


def _logits(network: NetworkPlan, pixels: npt.NDArray[np.uint8], session: Any) -> dict[str, npt.NDArray[np.float32]]:
    if session is None:
        said = torch_outputs(network, pixels)
        return {head.name: torch_logits(head, said)[0] for head in network.heads}
    outputs = session.run([network.output_name(head) for head in network.heads], {"pixels": pixels})
    return {head.name: rows[0] for head, rows in zip(network.heads, outputs, strict=True)}


def _photos(folder: PhotoFolder | None, limits: Limits) -> Iterator[bytes]:
    found = 0
    if folder is not None:
        for content in islice(folder.read(folder.spread(COUNT), lambda photo, _: _encoded(photo.rgb, limits)), COUNT):
            yield content
            found += 1
    for seed in range(COUNT - found):
        yield _encoded(Image.fromarray(generated(seed, (320, 240))), limits)


def _encoded(image: Image.Image, limits: Limits) -> bytes:
    """A small JPEG of a picture that the limits allow, without anything that a camera wrote into it."""
    for side in _SIDES:
        small = image.copy()
        small.thumbnail((side, side))
        content = io.BytesIO()
        Image.frombytes("RGB", small.size, small.tobytes()).save(content, "JPEG", quality=90)
        if len(content.getvalue()) <= limits.max_bytes and small.width * small.height <= limits.max_pixels:
            break
    return content.getvalue()
