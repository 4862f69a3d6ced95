"""What every system is measured with: the same two networks and the same photos."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import car_analyzer_export
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .command_line import SIZES
from .rivals.networks import NETWORKS
from .rivals.reading import HEADS

NETWORKS_FILE = Path(__file__).parent / "rivals" / "networks.py"
PHOTOS_OF_EACH = 8


class Materials(NamedTuple):
    """A model repository, the folder with a state_dict for each head in it, and the name of their network."""

    repository: Path
    weights: Path
    network: str


def make_materials(network: str, folder: Path) -> Materials:
    """Makes and exports both networks, unless this exporter has made them already."""
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
        # As for trained networks. The export would not choose it for these: their answers are random.
        lines += ['decoding = "scaled"', 'resampling = "fast"']
    spec = made.weights / "spec.toml"
    spec.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"Exporting two {network} ...", file=sys.stderr)
    export(plan_export(Spec.from_file(spec)), made.repository)
    made_of.write_text(digest.hexdigest())
    return made


def make_photos(size: str, folder: Path) -> Path:
    """Makes JPEGs as large as photographs of so many pixels usually are, unless they are there.

    Returns:
        Their folder.
    """
    made = folder / f"photos-{size}"
    if made.is_dir():
        return made
    random = np.random.default_rng(0)
    width, height = SIZES[size]
    unfinished = folder / f"photos-{size}.unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    for number in range(PHOTOS_OF_EACH):
        # Large shapes for the colours, small ones for the detail, and grain: about 2 bits a pixel at quality 90.
        broad, fine = (
            Image.fromarray(random.integers(0, 256, (n * 3 // 4, n, 3), dtype=np.uint8)).resize((width, height), 3)
            for n in (8, 64)
        )
        picture = np.asarray(Image.blend(broad, fine, 0.3), dtype=np.int16)
        grain = random.normal(0, 6, (height, width, 1)).astype(np.int16)
        Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(unfinished / f"{number}.jpg", quality=90)
    return unfinished.rename(made)
