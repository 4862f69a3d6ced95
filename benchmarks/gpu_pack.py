"""Puts everything that `benchmarks.gpu` needs into one folder, for a machine without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from car_analyzer_export.errors import ExportError
from car_analyzer_export.export import export
from car_analyzer_export.pictures import generated
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .gpu_variants import SIZES, VARIANTS, Variant
from .materials import make_materials, make_photos

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
_CODE = ("benchmarks", "client", "export", "gateway", "reliability", "server")
# What the GPU machine installs, for CUDA 13 as ONNX Runtime 1.31. What cannot be downloaded is named and left out, and
# so are the parts that need it.
WHEELS = {
    "car-analyzer": (
        "nvidia-pytriton>=0.7,<0.8", "onnxruntime-gpu[cuda,cudnn]>=1.31,<1.32", "numpy<2", "nvidia-cublas>=13,<14",
    ),
    "what the benchmark needs": ("matplotlib>=3.9", "tqdm>=4.66", "psutil>=6", "pydantic>=2.10", "aiohttp>=3.10"),
    "the client": ("tritonclient[grpc,http]>=2.50", "pillow>=11.3"),
    "fast resampling": ("cykooz-resizer>=4.0.1",),
    "PyTorch": ("torch>=2.10",),
    "DALI": ("nvidia-dali-cuda130>=2",),
    # NVIDIA has an index of its own for TensorRT's wheels.
    "TensorRT": ("--extra-index-url=https://pypi.nvidia.com", "tensorrt-cu13-libs>=10.13,<11"),
}  # fmt: skip
_RUN = """\
#!/bin/sh
# Measures on this machine, without a network: a table, gpu.png and gpu.json in `figures`.
set -e
cd "$(dirname "$0")"
if [ -d wheels ] && [ ! -d .venv ]; then
    python3 -m venv .venv
    for needs in wheels/*.txt; do
        .venv/bin/pip install --quiet --no-index --find-links wheels --requirement "$needs" ||
            echo "left out: $needs cannot be installed" >&2
    done
fi
python="$(pwd)/.venv/bin/python"
[ -x "$python" ] || python=python3
code="$(pwd)/code"
export PYTHONPATH="$code/client:$code/export:$code/gateway:$code/server:$code"
exec "$python" -m benchmarks.gpu --packed . --out figures "$@"
"""


def pack(folder: Path, network: str, *, wheels: bool) -> None:
    """Fills a folder: the code, the exported networks, photos, wheels for this Python, and a script that runs it."""
    ignored = shutil.ignore_patterns("__pycache__")
    for room in _CODE:
        shutil.copytree(ROOT / room, folder / "code" / room, ignore=ignored, dirs_exist_ok=True)
    make_variants(folder / "models", network)
    for size in SIZES:
        make_photos(size, folder / "models")
    if wheels:
        _download(folder / "wheels")
    run = folder / "run.sh"
    run.write_text(_RUN, encoding="utf-8")
    run.chmod(0o755)
    print(f"packed: on the machine with the GPU, run {run.name} in a copy of {folder}", file=sys.stderr)


def make_variants(folder: Path, network: str, variants: Sequence[Variant] = VARIANTS) -> None:
    """Exports the networks in each variant as a model repository of its own, unless it is there."""
    materials = make_materials(network, folder)
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for seed in range(16):
        Image.fromarray(generated(seed, (320, 240))).save(photos / f"{seed}.jpg", quality=90)
    (folder / "network").write_text(network, encoding="utf-8")
    spec = Spec.from_file(materials.weights / "spec.toml")
    engines = str(Path(tempfile.gettempdir()) / "car-analyzer-engines")
    for variant in variants:
        repository = folder / variant.name.replace(" ", "-")
        if repository.exists():
            continue
        print(f"Exporting {network}, {variant.name} ...", file=sys.stderr)
        changes = {"target": "gpu", "engine_cache": engines, "photos": photos, **variant._asdict()}
        try:
            export(plan_export(spec.model_copy(update=changes)), repository)
        except ExportError as error:
            shutil.rmtree(repository, ignore_errors=True)
            print(f"left out: {variant.name}: {error}", file=sys.stderr)


def _download(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
    for number, (what, needs) in enumerate(WHEELS.items()):
        print(f"Downloading {what}: {', '.join(needs)} ...", file=sys.stderr)
        ended = subprocess.run([*command, *needs], capture_output=True, text=True, check=False)
        if ended.returncode:
            errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: pip failed"]
            print(f"left out: {what}: {errors[-1].removeprefix('ERROR: ')}", file=sys.stderr)
            continue
        packages = [need for need in needs if not need.startswith("--")]
        name = f"{number}-{what.lower().replace(' ', '-')}.txt"
        (folder / name).write_text("\n".join(packages) + "\n", encoding="utf-8")
