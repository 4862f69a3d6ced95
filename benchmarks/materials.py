"""What every system is measured with: the same two networks and the same photos."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

import car_analyzer_export
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .command_line import SIZES
from .rivals.networks import NETWORKS
from .rivals.reading import HEADS, analyze, sessions

if TYPE_CHECKING:
    from collections.abc import Mapping

NETWORKS_FILE = Path(__file__).parent / "rivals" / "networks.py"
_PHOTOS_OF_EACH = 8
# What the export chooses for trained networks. It would not for these: their answers are random.
_SPEC = {"decoding": "scaled", "resampling": "fast"}


class Materials(NamedTuple):
    """A model repository, the folder with a state_dict for each head in it, and the name of their network."""

    repository: Path
    weights: Path
    network: str


def make_materials(
    network: str, folder: Path, spec: Mapping[str, str] | None = None, *, explain: bool = False
) -> Materials:
    """Makes and exports both networks, unless this exporter has made them already.

    Args:
        network: A key of `NETWORKS`.
        folder: Where its folder is made.
        spec: Keys of the spec for both networks, such as `resampling`, where they differ from the defaults.
        explain: Also export class activation maps.

    Raises:
        SpecError: The exporter does not have such a key.
    """
    home = folder / "-".join((network, *(spec or {}).values(), *(["explain"] if explain else [])))
    made = Materials(home / "model_repository", home, network)
    spec = _SPEC | dict(spec or {})
    digest = hashlib.sha256(repr(spec).encode())
    for source in [NETWORKS_FILE, *sorted(Path(car_analyzer_export.__file__).parent.rglob("*.py"))]:
        digest.update(source.read_bytes())
    made_of = home / "made_of"
    if made_of.is_file() and made_of.read_text() == digest.hexdigest():
        return made
    shutil.rmtree(made.weights, ignore_errors=True)
    made.weights.mkdir(parents=True, exist_ok=True)
    lines = ["explain = true"] if explain else []
    for seed, head in enumerate(HEADS):
        torch.manual_seed(seed)
        module = NETWORKS[network]().eval()
        torch.save(module.state_dict(), made.weights / f"{head}.pth")
        factory = f"{NETWORKS_FILE}:{network}"
        lines += [f"[heads.{head}]", f'weights = "{head}.pth"', f'architecture = "{factory}"']
        lines += [f'{key} = "{value}"' for key, value in spec.items()]
    file = made.weights / "spec.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    plan = plan_export(Spec.from_file(file))
    print(f"Exporting two {network} ...", file=sys.stderr)
    export(plan, made.repository)
    made_of.write_text(digest.hexdigest())
    return made


def make_photos(size: str, folder: Path, count: int = _PHOTOS_OF_EACH) -> Path:
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
    for number in range(count):
        # Large shapes for the colours, small ones for the detail, and grain: about 2 bits a pixel at quality 90.
        broad, fine = (
            Image.fromarray(random.integers(0, 256, (n * 3 // 4, n, 3), dtype=np.uint8)).resize((width, height), 3)
            for n in (8, 64)
        )
        picture = np.asarray(Image.blend(broad, fine, 0.3), dtype=np.int16)
        grain = random.normal(0, 6, (height, width, 1)).astype(np.int16)
        Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(unfinished / f"{number}.jpg", quality=90)
    return unfinished.rename(made)


def expect_answers(materials: Materials, photos: Path) -> Path:
    """Answers each photo with Pillow and ONNX Runtime in this process, as the networks were trained.

    Returns:
        A file with the answers, in the order of the photos' names.
    """
    made = materials.weights / f"expected-{photos.name}.json"
    if not made.is_file():
        loaded = sessions(materials.repository)
        answers = [analyze(loaded, photo.read_bytes()) for photo in sorted(photos.iterdir())]
        made.write_text(json.dumps(answers), encoding="utf-8")
    return made
