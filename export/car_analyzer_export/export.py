"""The export: checkpoints in, a new version in the model repository out."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from .checkpoint import load_checkpoint
from .errors import ExportError, SpecError
from .graph import OPSET, PixelsToLogits, check_network, write_onnx
from .network import build_network, load_weights
from .pictures import comparison_pixels
from .repository import publish, staging
from .spec import ENSEMBLE
from .verify import BATCHES, TOLERANCE, compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from .spec import Head, Spec

STEPS_PER_HEAD = 3


@dataclass(frozen=True)
class Export:
    """What an export published.

    Attributes:
        repository: The model repository.
        version: The version's number, the same for every head and the ensemble.
        heads: Head name → what was compared and recorded in its `export.json`.
    """

    repository: Path
    version: int
    heads: dict[str, dict[str, Any]]


def export(
    spec: Spec,
    repository: Path,
    *,
    version: int | None = None,
    trust_pickle: bool = False,
    progress: Callable[[str], None] = lambda _step: None,
) -> Export:
    """Exports every head, compares it with PyTorch, and publishes all of them together.

    Args:
        spec: What to export.
        repository: The model repository; made if it is not there.
        version: The version's number; the next free one by default.
        trust_pickle: See `load_checkpoint`.
        progress: Called with a few words at the start of each of `STEPS_PER_HEAD` steps a head.

    Raises:
        ExportError: Something is wrong; the repository is as it was.
    """
    pixels = comparison_pixels(spec.preprocessing, max(BATCHES), spec.photos)
    with staging(repository, spec) as staged:
        records = {
            name: _export_head(name, head, spec, staged.version_folder(name), pixels, trust_pickle, progress)
            for name, head in spec.heads.items()
        }
        staged.write_configs()

        def record(number: int) -> None:
            for name, facts in records.items():
                _write_record(staged.version_folder(name), {"head": name, "version": number, **facts})
            # Also keeps the ensemble's version folder from being empty: Git and object stores drop empty folders.
            models = {name: facts["model"]["sha256"] for name, facts in records.items()}
            _write_record(staged.version_folder(ENSEMBLE), {"version": number, "models": models})

        number = publish(staged, repository, version, record)
    return Export(repository, number, records)


def _export_head(
    name: str,
    head: Head,
    spec: Spec,
    folder: Path,
    pixels: npt.NDArray[np.uint8],
    trust_pickle: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    file = folder / "model.onnx"
    try:
        progress(f"{name}: loading {head.weights.name}")
        network = _load_network(head, trust_pickle).float().eval()
        check_network(network, len(head.labels), spec.photo_size)
        progress(f"{name}: exporting to ONNX")
        write_onnx(PixelsToLogits(network, head).eval(), file, spec.photo_size)
        progress(f"{name}: comparing with PyTorch")
        comparisons = compare(file, network, head, pixels)
    except ExportError as error:
        raise type(error)(f"Head '{name}': {error}") from error
    return {
        "labels": head.labels,
        "photo_size": spec.photo_size,
        "mean": head.mean,
        "std": head.std,
        "weights": _file_facts(head.weights),
        "model": _file_facts(file) | {"opset": OPSET},
        "compared_with_pytorch": {
            "pictures": "photos" if spec.photos else "generated",
            "tolerance": TOLERANCE,
            "batches": [asdict(comparison) for comparison in comparisons],
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("car-analyzer", "torch", "onnx", "onnxscript", "onnxruntime")},
        },
        "exported_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _write_record(folder: Path, facts: dict[str, Any]) -> None:
    (folder / "export.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _load_network(head: Head, trust_pickle: bool) -> torch.nn.Module:
    loaded = load_checkpoint(head.weights, trust_pickle=trust_pickle)
    if isinstance(loaded, torch.nn.Module):
        return loaded
    if head.architecture is None:
        raise SpecError("no architecture is named; say which network the weights belong to, as FILE.py:FACTORY.")
    network = build_network(head.architecture)
    load_weights(network, loaded, head.weights)
    return network


def _file_facts(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
