"""Packs all that `benchmarks.gpu` needs for a machine without a network, in parts that can travel one by one.

The folder has `parts`, which is what travels, and `wheels`, `pack` and `archives`, from which it is made. What is
complete there is kept when the packing starts again.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from tqdm import tqdm

from car_analyzer_export.errors import ExportError
from car_analyzer_export.export import export
from car_analyzer_export.pictures import generated
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .fatbin import thin
from .gpu_variants import SIZES, VARIANTS, Variant
from .materials import make_materials, make_photos
from .rivals.reading import HEADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).parents[1]
_CODE = ("benchmarks", "client", "export", "gateway", "reliability", "server")
# With what they depend on. This version of `tritonclient` has `perf_analyzer` (see there), and needs `pkg_resources`.
_PACKAGES = (
    "onnxruntime-gpu>=1.31,<1.32", "nvidia-dali-cuda130>=2", "tritonclient[grpc]==2.50.0", "numpy<2", "pillow>=11.3",
    "cykooz-resizer>=4.0.1", "h11>=0.14", "matplotlib>=3.9", "psutil>=6", "tqdm>=4.66",
    "setuptools<81",
)  # fmt: skip
# What it depends on is for its own client.
_ALONE = ("nvidia-pytriton>=0.7,<0.8",)
_UNUSED_LIBRARY = ("site-packages", "__pycache__", "test", "idlelib", "ensurepip", "tkinter", "lib2to3", "config-*")
_UNUSED_PACKAGES = (
    "**/__pycache__", "**/tests", "nvidia/dali/include", "nvidia/dali/test", "nvidia/dali/plugin",
    "onnxruntime/transformers", "onnxruntime/tools", "onnxruntime/quantization", "nvidia_pytriton.libs/libpython3-*",
)  # fmt: skip
_TENSORRT = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
_LEAST_LIBRARY = 1 << 20
_PRESET = 6
# Networks of the same weights are stored once if they are within this distance.
_DICTIONARY = {"models": 256 << 20}
_SCRIPTS = Path(__file__).parent / "gpu_scripts"


class PackError(Exception):
    """It cannot be packed here; the message says why."""


def pack(
    folder: Path,
    network: str,
    variants: Sequence[Variant],
    *,
    packages: Sequence[str],
    architecture: int,
    size: int,
    official_backend: Path | None = None,
) -> None:
    """Packs a Python with all packages, the code, the exported networks and photos.

    Args:
        folder: See the module.
        network: A key of `NETWORKS`.
        variants: Those to export.
        packages: More packages for the Python.
        architecture: Of the GPU, such as 90; code for others is taken out of the libraries.
        size: The most bytes of a part.
        official_backend: A folder with the official ONNX Runtime backend, to pack as well.

    Raises:
        PackError: A package cannot be downloaded, or this Python cannot be packed.
    """
    home = folder / "pack"
    home.mkdir(parents=True, exist_ok=True)
    _make_python(home / "python", _download(folder / "wheels", packages), architecture)
    make_variants(home / "models", network, variants)
    for name, count in SIZES.items():
        make_photos(name, home / "models", count)
    shutil.rmtree(home / "code", ignore_errors=True)
    for room in _CODE:
        shutil.copytree(ROOT / room, home / "code" / room, ignore=shutil.ignore_patterns("__pycache__"))
    if official_backend:
        shutil.copytree(official_backend, home / "official", dirs_exist_ok=True)
    shutil.copy2(_SCRIPTS / "run.sh", home)
    parts = _split(_archive(home, folder / "archives"), folder / "parts", size)
    megabytes = [round(part.stat().st_size / 1e6) for part in parts]
    print(f"packed: {len(parts)} parts in {folder / 'parts'}, of {megabytes} MB", file=sys.stderr)


def make_variants(folder: Path, network: str, variants: Sequence[Variant] = VARIANTS) -> None:
    """Exports the networks of each variant as a model repository of its own, unless it is there."""
    weights = _make_weights(network, folder)
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for seed in range(16):
        Image.fromarray(generated(seed, (320, 240))).save(photos / f"{seed}.jpg", quality=90)
    (folder / "network").write_text(network, encoding="utf-8")
    for interrupted in folder.glob(".*.export-*"):
        shutil.rmtree(interrupted)
    spec = Spec.from_file(weights / "spec.toml")
    engines = str(Path(tempfile.gettempdir()) / "car-analyzer-engines")
    for variant in variants:
        repository = folder / variant.folder
        if repository.exists():
            continue
        print(f"Exporting {network}, {variant.folder} ...", file=sys.stderr)
        changes = {"engine_cache": engines, "photos": photos, **variant.spec()}
        if variant.batch_sizes:
            changes["limits"] = spec.limits.model_copy(update={"batch_sizes": variant.batch_sizes})
        try:
            export(plan_export(spec.model_copy(update=changes)), repository)
        except ExportError as error:
            shutil.rmtree(repository, ignore_errors=True)
            print(f"left out: {variant.name}: {error}", file=sys.stderr)


def _make_weights(network: str, folder: Path) -> Path:
    """Both heads get the same weights, with half of their digits, which changes no time and packs small."""
    weights = make_materials(network, folder / "materials").weights
    made = folder / "weights"
    if not made.exists():
        unfinished = folder / "weights.unfinished"
        unfinished.mkdir(exist_ok=True)
        state = torch.load(weights / f"{HEADS[0]}.pth", weights_only=True)
        rounded = {name: value.bfloat16().to(value.dtype) for name, value in state.items()}
        for head in HEADS:
            torch.save(rounded, unfinished / f"{head}.pth")
        shutil.copy(weights / "spec.toml", unfinished)
        unfinished.rename(made)
    return made


def _download(folder: Path, packages: Sequence[str]) -> list[Path]:
    """The wheels of all packages for this Python, downloaded unless they are there."""
    folder.mkdir(exist_ok=True)
    wheels: list[Path] = []
    for alone, needs in ((False, (*_PACKAGES, *packages)), (True, _ALONE)):
        done = folder / f"{hashlib.sha256(repr(needs).encode()).hexdigest()[:16]}.txt"
        target = folder / done.stem
        if not done.exists():
            print(f"Downloading {', '.join(needs)} ...", file=sys.stderr)
            options = ["--only-binary=:all:", "--dest", target, *(["--no-deps"] if alone else [])]
            _pip("download", *options, *needs)
            done.touch()
        wheels += sorted(target.glob("*.whl"))
    return wheels


def _pip(command: str, *arguments: object) -> None:
    line = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    if ended.returncode:
        errors = [each for each in ended.stderr.splitlines() if each.startswith("ERROR")] or [ended.stderr.strip()]
        raise PackError(f"pip {command} failed: {errors[-1].removeprefix('ERROR: ')}")


def _make_python(home: Path, wheels: Sequence[Path], architecture: int) -> None:
    """Copies the running Python, which finds its files beside itself, and installs the wheels in it."""
    made_of = "\n".join([*(wheel.name for wheel in wheels), str(architecture), *_UNUSED_LIBRARY, *_UNUSED_PACKAGES])
    if home.exists() and (home / "made_of").read_text(encoding="utf-8") == made_of:
        return
    library = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "none")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not library.is_file():
        raise PackError("This Python has no shared library, which Triton needs: use one built with --enable-shared.")
    print(f"Copying Python {sys.version.split()[0]} and {len(wheels)} packages ...", file=sys.stderr)
    unfinished, stdlib = home.with_name("python.unfinished"), Path(os.__file__).parent
    for each in (home, unfinished):
        shutil.rmtree(each, ignore_errors=True)
    shutil.copytree(stdlib, unfinished / "lib" / stdlib.name, ignore=shutil.ignore_patterns(*_UNUSED_LIBRARY))
    shutil.copy2(library, unfinished / "lib")
    site = unfinished / "lib" / stdlib.name / "site-packages"
    _pip("install", "--no-index", "--no-deps", "--no-compile", "--ignore-installed", "--prefix", unfinished, *wheels)
    for script in (unfinished / "bin").iterdir():
        if script.name != "perf_analyzer":
            script.unlink()
    shutil.copy2(Path(sys.executable).resolve(), unfinished / "bin" / "python3")
    has_tensorrt = any(wheel.name.startswith("tensorrt") for wheel in wheels)
    for pattern in (*_UNUSED_PACKAGES, *([] if has_tensorrt else [_TENSORRT]), *_other_pythons(site)):
        for found in list(site.glob(pattern)):
            shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
    for found in site.rglob("*.so*"):
        if found.stat().st_size > _LEAST_LIBRARY:
            thin(found, architecture)
    (unfinished / "made_of").write_text(made_of, encoding="utf-8")
    unfinished.rename(home)


def _other_pythons(site: Path) -> Iterable[str]:
    """What packages hold for other versions of Python."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    stubs = (site / "pytriton" / "tritonserver" / "python_backend_stubs").glob("*")
    yield from (str(each.relative_to(site)) for each in stubs if each.name != own)
    tag = sysconfig.get_config_var("SOABI") or ""
    yield from (str(each.relative_to(site)) for each in site.rglob("*.cpython-3*.so") if tag not in each.name)


def _archive(home: Path, folder: Path) -> list[Path]:
    """Compresses the pack as several archives, two at a time; those that did not change are kept."""
    folder.mkdir(exist_ok=True)
    groups: dict[str, list[str]] = {}
    for file in sorted(each for each in home.rglob("*") if not each.is_dir()):
        groups.setdefault(_group(name := str(file.relative_to(home))), []).append(name)
    groups["models"] = [name for name in groups["models"] if name.split("/")[1] not in ("materials", "weights")]
    jobs: dict[Path, list[str]] = {}
    for group, names in groups.items():
        digest = hashlib.sha256()
        for name in names:
            digest.update(name.encode() + hashlib.sha256((home / name).read_bytes()).digest())
        jobs[folder / f"{group}-{digest.hexdigest()[:16]}.tar.xz"] = names
    for old in set(folder.iterdir()) - set(jobs):
        old.unlink()
    missing = {file: names for file, names in jobs.items() if not file.exists()}
    with ProcessPoolExecutor(2) as pool, tqdm(total=len(missing), desc="Compressing", disable=None) as progress:
        for future in [pool.submit(_compress, home, *job) for job in missing.items()]:
            future.result()
            progress.update()
    return sorted(jobs)


def _group(name: str) -> str:
    """The archive of a file: large packages have one of their own, so that the archives unpack side by side."""
    if not name.startswith("python/"):
        return "models" if name.startswith("models/") else "code"
    return next((large for large in ("onnxruntime", "nvidia") if f"/site-packages/{large}/" in name), "python")


def _compress(home: Path, file: Path, names: Sequence[str]) -> None:
    unfinished = file.with_suffix(".unfinished")
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": _PRESET}
    if dictionary := _DICTIONARY.get(file.name.partition("-")[0]):
        lzma2["dict_size"] = dictionary
    with lzma.open(unfinished, "wb", filters=[lzma2]) as compressed, tarfile.open(fileobj=compressed, mode="w|") as tar:
        for name in names:
            tar.add(home / name, name)
    unfinished.rename(file)


def _split(archives: Sequence[Path], folder: Path, size: int) -> list[Path]:
    """Cuts the archives, one after the other, into parts; adds their checksums, and the script that unpacks them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    whole = folder / "whole.tar"
    with tarfile.open(whole, "w") as tar:
        for archive in archives:
            tar.add(archive, archive.name)
    parts: list[Path] = []
    sums = []
    with whole.open("rb") as content:
        while part := content.read(size):
            parts.append(folder / f"part.{len(parts):02}")
            parts[-1].write_bytes(part)
            sums.append(f"{hashlib.sha256(part).hexdigest()}  {parts[-1].name}\n")
    whole.unlink()
    (folder / "parts.sha256").write_text("".join(sums), encoding="utf-8")
    shutil.copy2(_SCRIPTS / "measure.sh", folder)
    return parts
