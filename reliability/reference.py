"""Photos with their expected answers: PyTorch's, by the recipe of the training and none of the project's code."""

from __future__ import annotations

import functools
import importlib.util
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EXAMPLES = Path(__file__).parents[1] / "examples"
HEADS = ("cleanliness", "condition")
# In the order of the logits.
LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}
# ONNX Runtime adds in another order than PyTorch; the export itself accepts 1e-4 on the same pixels.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class ReferencePhoto:
    """A photo and its expected answer.

    Attributes:
        name: For messages.
        content: The file's bytes.
        logits: PyTorch's, one row for each head; None if the photo must be rejected.
    """

    name: str
    content: bytes
    logits: Mapping[str, Sequence[float]] | None

    def matches(self, logits: Mapping[str, Sequence[float]]) -> bool:
        """Whether these logits are the expected ones."""
        return (
            self.logits is not None
            and set(logits) == set(self.logits)
            and all(np.allclose(logits[head], self.logits[head], rtol=0, atol=TOLERANCE) for head in self.logits)
        )

    def matches_json(self, answer: Mapping[str, object]) -> bool:
        """Whether a gateway's answer has the labels and confidences of the expected logits."""
        return self.logits is not None and all(
            answer.get(head) == LABELS[head][int(np.argmax(row))]
            and math.isclose(float(str(answer.get(f"{head}Confidence"))), _confidence(row), abs_tol=TOLERANCE)
            for head, row in self.logits.items()
        )


def reference_logits(
    photo: bytes, network: Callable[[str], Any] | None = None, *, exact: bool = False
) -> dict[str, list[float]]:
    """PyTorch's logits for a photo.

    Args:
        photo: The file's bytes.
        network: Head → its network in eval mode; the trained demo networks by default.
        exact: As trained: with every pixel of a large JPEG, and Pillow's resize. By default as in the demo's export,
            which takes both shortcuts.

    Raises:
        Exception: Pillow cannot decode it.
    """
    import torch  # here: load generators need the photos only, and must start fast

    stored = Image.open(io.BytesIO(photo))
    if not exact:
        _scale_down(stored)
    image = _resize(stored.convert("RGB"), exact=exact)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tensor = torch.from_numpy(np.array(image)).float().div(255).sub(mean).div(std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return {head: (network or demo_network)(head)(tensor)[0].tolist() for head in HEADS}


def _scale_down(image: Image.Image) -> None:
    """Has the decoder leave out detail of a large JPEG, as the default spec does."""
    for scale in (8, 4, 2):
        if image.format == "JPEG" and all(not side % scale and side // scale >= 3 * 224 for side in image.size):
            image.draft(None, (image.width // scale, image.height // scale))
            break


def _resize(image: Image.Image, *, exact: bool) -> Image.Image:
    if exact or cykooz_resizer is None:
        return image.resize((224, 224), Image.Resampling.BILINEAR)
    resized = Image.new("RGB", (224, 224))
    bilinear = cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.bilinear)
    cykooz_resizer.Resizer().resize_pil(image, resized, cykooz_resizer.ResizeOptions(bilinear))
    return resized


@functools.cache
def demo_network(head: str) -> Any:
    """The trained demo network of a head, in eval mode."""
    import torch

    spec = importlib.util.spec_from_file_location("demo_network", EXAMPLES / "demo_network.py")
    assert spec is not None  # noqa: S101 - the file is part of this repository
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.build()
    network.load_state_dict(torch.load(EXAMPLES / f"{head}_model.pth", weights_only=True), strict=True)
    return network.eval()


@functools.cache
def reference_photos() -> tuple[ReferencePhoto, ...]:
    """The sample photos of drawn cars."""
    photos = {file.name: file.read_bytes() for file in sorted((EXAMPLES / "photos").glob("*.jpg"))}
    return tuple(ReferencePhoto(name, content, reference_logits(content)) for name, content in photos.items())


def _confidence(row: Sequence[float]) -> float:
    return 1 / sum(math.exp(logit - max(row)) for logit in row)
