"""The export: checkpoints in, a new version in the model repository out."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ExportError
from .graph import OPSET, check_network, write_onnx
from .known import write_known
from .pictures import comparison_pixels, read_photos
from .precision import MAX_PICTURES, convert
from .repository import Staging, added, choose_number, staging
from .spec import ENSEMBLE
from .verify import BATCHES, TOLERANCE, compare
from .versions import RECORD, locked, on_disk, remember, serve_from_next_start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .checking.outcome import Outcome
    from .plan import NetworkPlan, Plan


@dataclass(frozen=True)
class Export:
    """What an export published.

    Attributes:
        repository: The model repository.
        version: The version's number, the same for every network and the ensemble.
        networks: Network name → what was compared and recorded in its `export.json`.
    """

    repository: Path
    version: int
    networks: dict[str, dict[str, Any]]


def export(
    plan: Plan,
    repository: Path,
    *,
    version: int | None = None,
    progress: Callable[[str], None] = lambda _step: None,
    deliver: Callable[[Path, int], None] | None = None,
    checked: Outcome | None = None,
) -> Export:
    """Exports every network, compares it with PyTorch, and puts all of them into the repository together.

    Args:
        plan: What to export.
        repository: The model repository; made if it is not there.
        version: The version's number; the next free one by default.
        progress: Called with a few words at the start of each step.
        deliver: Called with the repository and the number once the version is in its place, to have it served now. If
            it raises, the version is taken back. By default, a Triton that starts later serves it.
        checked: How the networks did on labelled photos, for the record.

    Raises:
        ExportError: Something is wrong; the repository is as it was.
    """
    with staging(repository, plan) as staged:
        records = {
            network.name: _export_network(network, plan, staged, progress) | _describe_check(network, checked)
            for network in plan.networks
        }
        files = {network.name: staged.version_folder(network.name) / "model.onnx" for network in plan.networks}
        write_known(plan, files, staged.version_folder(ENSEMBLE))
        with locked(repository):
            number = choose_number(repository, staged.models, version)
            staged.write(number)
            for name, facts in records.items():
                _write_record(staged.version_folder(name), {"model": name, "version": number, **facts})
            models = {name: facts["onnx"]["sha256"] for name, facts in records.items()}
            _write_record(staged.version_folder(ENSEMBLE), {"model": ENSEMBLE, "version": number, "models": models})
            with added(staged, repository, number, shown=deliver is not None):
                if deliver is not None:
                    deliver(repository, number)
                else:
                    before = on_disk(repository)
                    serve_from_next_start(repository, number)
                    remember(repository, number, before)
    return Export(repository, number, records)


def _export_network(
    network: NetworkPlan, plan: Plan, staged: Staging, progress: Callable[[str], None]
) -> dict[str, Any]:
    file = staged.version_folder(network.name) / "model.onnx"
    try:
        progress(f"{network.name}: exporting to ONNX")
        check_network(network)
        for_tensorrt = plan.accelerator == "tensorrt"
        write_onnx(network, file, cast_first=for_tensorrt)
        progress(f"{network.name}: comparing with PyTorch")
        pixels = comparison_pixels(network.view, max(BATCHES), plan.photos, plan.limits)
        comparisons = compare(file, network, pixels)
        precision = {}
        if plan.precision != "fp32":
            progress(f"{network.name}: converting to {plan.precision}")
            if plan.photos is not None:
                pixels = np.stack(read_photos(network.view, plan.photos, MAX_PICTURES, plan.limits))
            precision = {"precision": convert(file, plan.precision, network, pixels, symmetric=for_tensorrt)}
    except ExportError as error:
        raise type(error)(f"{'Head' if len(network.heads) == 1 else 'Network'} '{network.name}': {error}") from error
    return (
        describe_network(network)
        | precision
        | {
            "weights": _file_facts(network.weights),
            "onnx": _file_facts(file) | {"opset": OPSET},
            "compared_with_pytorch": {
                "pictures": "photos" if plan.photos else "generated",
                "tolerance": TOLERANCE,
                "batches": {name: [asdict(one) for one in found] for name, found in comparisons.items()},
            },
            "versions": {
                "python": platform.python_version(),
                **{
                    name: metadata.version(name)
                    for name in ("car-analyzer", "torch", "onnx", "onnxscript", "onnxruntime")
                },
            },
            "exported_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
    )


def describe_network(network: NetworkPlan) -> dict[str, Any]:
    """A network's plan as JSON-ready values."""
    return {
        "heads": {head.name: _without_defaults(asdict(head)) for head in network.heads},
        # Without the folder of a factory's file: it is one of this machine.
        "architecture": network.architecture.rpartition("/")[2],
        "view": asdict(network.view),
        "mean": network.mean,
        "std": network.std,
        "channels": "BGR" if network.bgr else "RGB",
        "batch_norm": network.statistics.to_dict() if network.statistics else None,
        "notes": network.notes,
    }


def _describe_check(network: NetworkPlan, checked: Outcome | None) -> dict[str, Any]:
    tallies = checked.tallies if checked is not None else {}
    known = {
        head.name: {"photos": found.photos, "right": found.right}
        for head in network.heads
        if (found := tallies.get(head.name))
    }
    return {"checked": known} if known else {}


def _without_defaults(head: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in head.items() if key != "name" and value is not None}


def _write_record(folder: Path, facts: dict[str, Any]) -> None:
    (folder / RECORD).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _file_facts(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
