"""`python -m benchmarks.gpu`: what one GPU serves, beside what its parts can do alone.

On a machine with a network, pack everything that is needed, wheels for this Python among it (some gigabytes):

    python -m benchmarks.gpu --pack build/gpu

Copy the folder to the machine with the GPU, which needs no network, and run `run.sh` in it. Where that machine has the
packages already, pack with `--without-wheels`. In a checkout with a GPU, `python -m benchmarks.gpu` is enough.

What cannot run (no CUDA, no TensorRT, no DALI, no time left) is left out and named. Without a GPU it all runs on the
CPU, which tells whether the script works, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import gpu_variants
from .gpu_report import DECODER, JPEGS, NETWORKS, PARITY, PIXELS, Row, as_table, draw
from .gpu_variants import VARIANTS, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORES = len(os.sched_getaffinity(0))
_DECODER_BATCH = 64
_FIRST = 3
_SECONDS_TO_START = 20
_MISSING = 3


class Run:
    """One run: what was found, and what was left out and why."""

    def __init__(self, arguments: argparse.Namespace, models: Path) -> None:
        self.rows: list[Row] = []
        self.parity: list[dict[str, object]] = []
        self.left_out: list[str] = []
        self._arguments = arguments
        self._models = models
        self._deadline = time.monotonic() + arguments.budget
        self._device = gpu_name()
        self._network = (models / "network").read_text(encoding="utf-8")

    def measure(self, variants: list[Variant]) -> None:
        """Measures everything: the most telling variants first, and of each the parts before the whole."""
        there = [variant for variant in variants if self._repository(variant).is_dir()]
        self.left_out += [f"{each.name}: it was not exported" for each in variants if each not in there]
        bare = {(each.accelerator, each.precision): each for each in reversed(there)}
        photos = {size: self._photos(size) for size in self._arguments.sizes}
        for size, file in photos.items():
            self._step(f"{DECODER}, {size}", partial(self._decoder, size, file))
        for number, few in enumerate((there[:_FIRST], there[_FIRST:])):
            for variant in [each for each in few if bare[each.accelerator, each.precision] is each]:
                name = f"{variant.accelerator} {variant.precision}"
                self._step(f"{NETWORKS}, {name}", partial(self._networks, variant, name))
            how = "compiled" if number else "eager"
            name = f"PyTorch {how}, {'fp16' if self._device else 'fp32'}"
            self._step(f"{NETWORKS}, {name}", partial(self._pytorch, name, how == "compiled"))
            for variant in few:
                self._step(f"served, {variant.name}", partial(self._served, variant, photos))
            if there and not number:
                if there[0].preprocess == "dali" and self._device:
                    name = f"served, {there[0].name}, by way of the CPU"
                    self._step(name, partial(self._served, there[0], photos, by_cpu=True))
                self._step(PARITY, partial(self._parity, there[0], photos[self._arguments.sizes[0]]))

    def _step(self, name: str, run: Callable[[], None]) -> None:
        only = self._arguments.only
        if only and not any(name.startswith(start) for start in only):
            return
        if self._left() < _SECONDS_TO_START:
            self.left_out.append(f"{name}: no time was left")
            return
        print(f"{name} ...", file=sys.stderr)
        try:
            run()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.left_out.append(f"{name}: {reason}")
            print(f"left out: {name}: {reason}", file=sys.stderr)

    def _networks(self, variant: Variant, name: str) -> None:
        if variant.accelerator == "tensorrt" and self._device is None:
            raise RuntimeError("there is no GPU")
        engines = Path(tempfile.gettempdir()) / f"car-analyzer-engines-{variant.precision}"
        given = {
            "repository": str(self._repository(variant)),
            "accelerator": variant.accelerator if self._device else "cpu",
            "engines": str(engines),
        }
        self._add(NETWORKS, name, "networks", given | self._sizes())

    def _pytorch(self, name: str, compiled: bool) -> None:
        # To compile takes long for each batch.
        batches = self._arguments.batches[:: 2 if compiled else 1]
        device = "cuda" if self._device else "cpu"
        given = {"network": self._network, "device": device, "compiled": compiled, "batches": batches}
        self._add(NETWORKS, name, "pytorch", given | {"seconds": self._arguments.seconds})

    def _decoder(self, size: str, file: Path) -> None:
        given = {"photos": str(file), "seconds": self._arguments.seconds, "batch": _DECODER_BATCH}
        self._add(f"{DECODER}, {size}", "", "decoder", given | {"device": 0 if self._device else None})

    def _add(self, section: str, name: str, part: str, given: dict[str, Any]) -> None:
        with watching() as gpu:
            found = self._part(part, given)
        for one in found:
            row = Row(section, one.get("what", name), one.get("batch"), one["rate"], one["p50"], one["p99"])
            self.rows.append(replace(row, utilisation=gpu.utilisation, memory=gpu.memory))

    def _parity(self, variant: Variant, file: Path) -> None:
        folder = self._arguments.photos
        given = {
            "photos": str(file),
            "repository": str(self._repository(variant)),
            "device": 0 if self._device else None,
            "folder": None if folder is None else str(folder),
        }
        self.parity += self._part("parity", given)

    def _served(self, variant: Variant, photos: dict[str, Path], *, by_cpu: bool = False) -> None:
        from . import gpu_served

        arguments = self._arguments
        name = variant.name + (", by way of the CPU" if by_cpu else "")
        load = (arguments.clients, arguments.processes, arguments.seconds)
        with gpu_served.served(self._repository(variant), CORES, pixels_on_cpu=by_cpu) as server:
            print(f"  {server.origin}", file=sys.stderr)
            if not by_cpu:
                with watching() as gpu:
                    batch = arguments.pixels_batch
                    found = gpu_served.pixels_in(server, batch, *load)
                row = Row(PIXELS, f"{variant.accelerator} {variant.precision}", batch, **found)
                self.rows.append(replace(row, utilisation=gpu.utilisation, memory=gpu.memory))
            for size, file in photos.items():
                if self._left() < 4 * arguments.seconds:
                    self.left_out.append(f"{JPEGS}, {size}, {name}: no time was left")
                    continue
                contents = pickle.loads(file.read_bytes())  # noqa: S301 - our own, just written
                with watching() as gpu:
                    loads = gpu_served.jpeg_in(server, contents, *load)
                for when, found in loads:
                    row = Row(f"{JPEGS}, {size}", f"{name}, {when}", None, **found)
                    self.rows.append(replace(row, utilisation=gpu.utilisation, memory=gpu.memory))

    def _sizes(self) -> dict[str, Any]:
        return {"batches": self._arguments.batches, "seconds": self._arguments.seconds}

    def _part(self, part: str, given: dict[str, Any]) -> list[dict[str, Any]]:
        """Runs a part in a process of its own: its GPU memory is free afterwards, and it can crash alone."""
        command = [sys.executable, "-m", "benchmarks.gpu_parts", part, json.dumps(given)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=self._left(), check=False)
        except subprocess.TimeoutExpired:
            raise RuntimeError("it did not end within the time left") from None
        if ended.returncode == _MISSING:
            raise RuntimeError(ended.stdout.strip())
        if ended.returncode:
            raise RuntimeError((ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1])
        found: list[dict[str, Any]] = json.loads(ended.stdout)
        return found

    def _photos(self, size: str) -> Path:
        file = self._models / f"photos-{size}.pickle"
        if not file.is_file():
            from .materials import make_photos

            file.write_bytes(pickle.dumps(make_photos(size)))
        return file

    def _repository(self, variant: Variant) -> Path:
        return self._models / variant.name.replace(" ", "-")

    def _left(self) -> float:
        return float(self._deadline - time.monotonic())


class Watch:
    """What nvidia-smi says of the GPU from time to time."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    @property
    def utilisation(self) -> float | None:
        """The mean, in percent."""
        return statistics.fmean(one for one, _ in self._seen) if self._seen else None

    @property
    def memory(self) -> float | None:
        """The most, in MB."""
        return max((one for _, one in self._seen), default=None)

    def read(self, lines: Any) -> None:
        """Reads what it prints until it ends."""
        for line in lines:
            with contextlib.suppress(ValueError):
                utilisation, memory = (float(part) for part in line.split(","))
                self._seen.append((utilisation, memory))


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Watches the GPU, if there is one, while the body runs."""
    watch = Watch()
    if gpu_name() is None:
        yield watch
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop-ms=250"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=watch.read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            yield watch
        finally:
            process.terminate()
            reader.join(5)


def gpu_name() -> str | None:
    """The first GPU; None if there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    ended = subprocess.run(query, capture_output=True, text=True, check=False)
    return ended.stdout.splitlines()[0] if ended.returncode == 0 and ended.stdout.strip() else None


def main() -> int:
    """Packs, or measures; prints the table and writes it with the picture and all figures."""
    arguments = _parse()
    if arguments.pack is not None:
        from .gpu_pack import pack

        pack(arguments.pack, arguments.network, wheels=not arguments.without_wheels)
        return 0
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    chosen = [each for each in VARIANTS if not arguments.variants or each.name in arguments.variants]
    models = (arguments.packed or out).absolute() / "models"
    if arguments.packed is None:
        from .gpu_pack import make_variants

        make_variants(models, arguments.network, chosen)
    device = gpu_name()
    machine = f"{device or 'no GPU'}; {platform.machine()}, {CORES} cores, Python {platform.python_version()}"
    print(machine, file=sys.stderr)
    if device is None:
        print("There is no GPU: all of this is the CPU's, and says only that the script works.", file=sys.stderr)
    run = Run(arguments, models)
    run.measure(chosen)
    table = f"{machine}\n\n{as_table(run.rows, run.parity, run.left_out)}\n"
    print(table)
    figures = {
        "machine": machine,
        "command": sys.argv[1:],
        "figures": [asdict(row) for row in run.rows],
        "parity": run.parity,
        "left_out": run.left_out,
    }
    (out / "gpu.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    (out / "gpu.md").write_text(table, encoding="utf-8")
    if not run.rows:
        return 1
    draw(run.rows, out / "gpu.png")
    print(f"written: {out / 'gpu.md'}, {out / 'gpu.png'}, {out / 'gpu.json'}", file=sys.stderr)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pack", type=Path, metavar="DIR", help="put all that is needed into DIR, and measure nothing")
    where.add_argument("--packed", type=Path, metavar="DIR", help="measure what was packed there")
    parser.add_argument("--without-wheels", action="store_true", help="pack no Python packages")
    parser.add_argument(
        "--network", choices=gpu_variants.NETWORKS, default="resnet18", help="to export; default: %(default)s"
    )
    parser.add_argument(
        "--variants", nargs="+", choices=[each.name for each in VARIANTS], metavar="NAME", help="default: all"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="START",
        help="measure what is so called, as in 'served, cuda'; default: everything",
    )
    parser.add_argument("--sizes", nargs="+", choices=gpu_variants.SIZES, default=gpu_variants.SIZES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 64, 128], help="of the bare networks")
    parser.add_argument("--pixels-batch", type=int, default=32, help="photos in a request; default: %(default)s")
    parser.add_argument("--clients", type=int, default=32, help="in each process of load; default: %(default)s")
    parser.add_argument("--processes", type=int, default=max(1, CORES // 4), help="of load; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement; default: %(default)s")
    parser.add_argument("--budget", type=float, default=570, help="seconds for all; default: %(default)s")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photographs for the parity of DALI and Pillow")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), metavar="DIR", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
