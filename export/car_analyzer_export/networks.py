"""Exports the networks of a plan to ONNX, compares them with PyTorch, and records the results."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ExportError
from .onnx_model.fixed_batches import fix_batch_sizes
from .onnx_model.graph import OPSET, write_onnx
from .onnx_model.maps import add_maps
from .onnx_model.precision import MAX_PICTURES, convert
from .onnx_model.verify import BATCHES, check_repeats, compare, compare_padded
from .photo_folder import PhotoFolder
from .pictures import comparison_pixels, read_photos
from .repository.reference_photos import record_references
from .repository.staging import Staging, Written
from .spec import ENSEMBLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .spec import NetworkPlan, Plan


def write_networks(plan: Plan, staged: Staging, progress: Callable[[str], None]) -> Written:
    """Writes every network, compared with PyTorch, and the reference photos into a staging folder.

    Args:
        plan: What to export.
        staged: The staging folder.
        progress: Called with a few words at the start of each step.

    Raises:
        ExportError: A network cannot be exported, or the ONNX model does not match it.
        OSError: The folder cannot be written.
    """
    photos = PhotoFolder(plan.photos, plan.limits) if plan.photos is not None else None
    records = {network.name: _export_network(network, plan, photos, staged, progress) for network in plan.networks}
    files = {network.name: staged.version_folder(network.name) / "model.onnx" for network in plan.networks}
    record_references(plan, files, staged.version_folder(ENSEMBLE), photos)
    return Written(records, photos.skipped if photos else {})


def _export_network(
    network: NetworkPlan,
    plan: Plan,
    photos: PhotoFolder | None,
    staged: Staging,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    file = staged.version_folder(network.name) / "model.onnx"
    try:
        progress(f"{network.name}: exporting to ONNX")
        sizes = plan.limits.batch_sizes or ()
        pixels = comparison_pixels(network.view, max(*BATCHES, *sizes), photos)
        check_repeats(network, pixels)
        for_tensorrt = plan.accelerator == "tensorrt"
        write_onnx(network, file, cast_first=for_tensorrt)
        progress(f"{network.name}: comparing with PyTorch")
        compared = compare(file, network, pixels)
        precision = {}
        if plan.precision != "fp32":
            progress(f"{network.name}: converting to {plan.precision}")
            pictures = pixels
            if photos is not None:
                pictures = np.stack(read_photos(network.view, photos, MAX_PICTURES))
            precision = {"precision": convert(file, plan.precision, network, pictures, symmetric=for_tensorrt)}
        maps = {"maps": add_maps(file, network, pixels, plan.precision)} if plan.explain else {}
        padding = {}
        if sizes:
            padded = file.with_name("padded.onnx")
            fix_batch_sizes(file, padded, sizes)
            padding = {"padding": compare_padded(file, padded, network, pixels, sizes, plan.precision)}
            padded.replace(file)
    except ExportError as error:
        raise type(error)(f"{network.title}: {error}") from error
    return (
        network.describe()
        | precision
        | maps
        | padding
        | {
            "batch_sizes": sizes,
            "weights": _file_facts(network.weights),
            "onnx": _file_facts(file) | {"opset": OPSET},
            "compared_with_pytorch": {
                "pictures": "photos" if photos else "generated",
                "tolerance": max(found.tolerance.limit for found in compared.values()),
                "tolerances": {name: asdict(found.tolerance) for name, found in compared.items()},
                "batches": {name: [asdict(one) for one in found.batches] for name, found in compared.items()},
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


def _file_facts(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
