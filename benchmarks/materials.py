"""What every system is measured with: the same two networks and the same photos."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import car_analyzer_export
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .rivals.networks import NETWORKS

NETWORKS_FILE = Path(__file__).parent / "rivals" / "networks.py"
HEADS = ("cleanliness", "condition")
# Photo sizes by what they are called in the tables. 480 x 640 is what apps send, 12 megapixels what phones take.
SIZES = {"s": (640, 480), "m": (1920, 1080), "l": (4000, 3000), "xl": (6000, 4000)}
PHOTOS_OF_EACH = 8


@dataclass(frozen=True)
class Materials:
    """Two networks as everybody needs them.

    Attributes:
        repository: The model repository; `model.onnx` of each head in it is what the rivals run.
        weights: Folder with a state_dict for each head.
        network: The name in `NETWORKS`.
    """

    repository: Path
    weights: Path
    network: str

    def onnx(self, head: str) -> Path:
        """The ONNX file of a head: uint8 pixels [batch, 224, 224, 3] in, logits out."""
        return self.repository / head / "1" / "model.onnx"


def make_materials(network: str, folder: Path) -> Materials:
    """Makes and exports both networks, unless they are there as the exporter of today would write them."""
    made = Materials(folder / network / "model_repository", folder / network, network)
    digest = hashlib.sha256()
    for source in [NETWORKS_FILE, *sorted(Path(car_analyzer_export.__file__).parent.rglob("*.py"))]:
        digest.update(source.read_bytes())
    made_of = folder / network / "made_of"
    if made_of.is_file() and made_of.read_text() == digest.hexdigest():
        return made
    shutil.rmtree(made.weights, ignore_errors=True)
    made.weights.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed, head in enumerate(HEADS):
        torch.manual_seed(seed)
        module = NETWORKS[network]().eval()
        torch.save(module.state_dict(), made.weights / f"{head}.pth")
        factory = f"{NETWORKS_FILE}:{network}"
        lines += [f"[heads.{head}]", f'weights = "{head}.pth"', f'architecture = "{factory}"']
        # As trained networks are served; of these, which know no photo, the export would not take it.
        lines += ['decoding = "scaled"']
    spec = made.weights / "spec.toml"
    spec.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"Exporting two {network} ...", file=sys.stderr)
    export(plan_export(Spec.from_file(spec)), made.repository)
    made_of.write_text(digest.hexdigest())
    return made


def make_photos(size: str) -> list[bytes]:
    """Pictures that are as large, after JPEG compression, as photographs of so many pixels usually are."""
    random = np.random.default_rng(0)
    width, height = SIZES[size]
    photos = []
    for _ in range(PHOTOS_OF_EACH):
        # Large shapes for the colours, small ones for the detail, and grain: about 2 bits a pixel at quality 90.
        broad, fine = (
            Image.fromarray(random.integers(0, 256, (n * 3 // 4, n, 3), dtype=np.uint8)).resize((width, height), 3)
            for n in (8, 64)
        )
        picture = np.asarray(Image.blend(broad, fine, 0.3), dtype=np.int16)
        grain = random.normal(0, 6, (height, width, 1)).astype(np.int16)
        file = io.BytesIO()
        Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        photos.append(file.getvalue())
    return photos
