"""`python -m benchmarks.gpu`: what one GPU serves, beside what its parts can do alone.

On a machine with a network, pack everything that is needed, including wheels for this Python (some gigabytes):

    python -m benchmarks.gpu --pack build/gpu

Copy the folder to the machine with the GPU, which needs no network, and run `run.sh` in it. Where that machine has the
packages already, pack with `--without-wheels`. In a checkout with a GPU, `python -m benchmarks.gpu` is enough.

What cannot run (no CUDA, no TensorRT, no DALI, no time left) is left out and named. Without a GPU everything runs on
the CPU, which shows that the script works, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from car_analyzer.command_line import count, positive

from .command_line import folder, make_parser
from .gpu_report import DECODER, JPEGS, NETWORKS, PARITY, PIXELS, Row, as_tables
from .gpu_variants import SIZES, VARIANTS, Variant
from .report import draw_bars
from .systems import CORES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

_DECODER_BATCH = 64
_FIRST = 3
_SECONDS_TO_START = 20


class Run:
    """One run: what was found, and what was left out and why."""

    def __init__(self, arguments: argparse.Namespace, models: Path) -> None:
        self.rows: list[Row] = []
        self.parity: list[dict[str, object]] = []
        self.left_out: list[str] = []
        self._arguments = arguments
        self._models = models
        self._deadline = time.monotonic() + arguments.budget
        self._device = 0 if gpu_name() else None
        self._network = (models / "network").read_text(encoding="utf-8")

    def measure(self, variants: list[Variant]) -> None:
        """Measures everything: the most informative variants first, and of each the parts before the whole."""
        there = [variant for variant in variants if self._repository(variant).is_dir()]
        self.left_out += [f"{each.name}: it was not exported" for each in variants if each not in there]
        batches = self._arguments.batches
        for size in self._arguments.sizes:
            self._measure_part(f"{DECODER}, {size}", "", "decoder", photos=self._photos(size), batch=_DECODER_BATCH)
        bare: set[str] = set()
        for few, how in ((there[:_FIRST], "eager"), (there[_FIRST:], "compiled")):
            for variant in few:
                if variant.network not in bare:
                    repository = str(self._repository(variant))
                    self._measure_part(NETWORKS, variant.network, "networks", repository=repository, batches=batches)
                bare.add(variant.network)
            name = f"PyTorch {how}, {'fp32' if self._device is None else 'fp16'}"
            # Compilation takes long for each batch.
            some = batches[:: 2 if how == "compiled" else 1]
            self._measure_part(
                NETWORKS, name, "pytorch", network=self._network, compiled=how == "compiled", batches=some
            )
            for variant in few:
                self._step(f"served, {variant.name}", partial(self._served, variant, variant.name))
            if there and how == "eager":
                if there[0].preprocess == "dali" and self._device is not None:
                    name = f"{there[0].name}, by way of the CPU"
                    self._step(f"served, {name}", partial(self._served, there[0], name, by_cpu=True))
                self._step(PARITY, partial(self._parity, there[0]))

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

    def _measure_part(self, section: str, name: str, part: str, **given: Any) -> None:
        def run() -> None:
            with watching() as gpu:
                found = self._part(part, seconds=self._arguments.seconds, **given)
            for one in found:
                row = Row(section, one.get("what", name), one.get("batch"), one["rate"], one["p50"], one["p99"])
                self.rows.append(replace(row, **gpu))

        self._step(f"{section}, {name}".removesuffix(", "), run)

    def _parity(self, variant: Variant) -> None:
        photos = str(self._arguments.photos or self._photos(self._arguments.sizes[0]))
        self.parity += self._part("parity", photos=photos, repository=str(self._repository(variant)))

    def _part(self, part: str, **given: Any) -> list[dict[str, Any]]:
        """Runs a part in a process of its own: its GPU memory is free afterwards, and it can crash alone."""
        from .gpu_parts import MISSING

        command = [sys.executable, "-m", "benchmarks.gpu_parts", part, json.dumps(given | {"device": self._device})]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=self._left(), check=False)
        except subprocess.TimeoutExpired:
            raise RuntimeError("it did not end within the time left") from None
        if ended.returncode == MISSING:
            raise RuntimeError(ended.stdout.strip())
        if ended.returncode:
            raise RuntimeError((ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1])
        found: list[dict[str, Any]] = json.loads(ended.stdout)
        return found

    def _served(self, variant: Variant, name: str, *, by_cpu: bool = False) -> None:
        """A whole Triton: pixels in, and JPEGs in, at its peak and at half of it."""
        from .load import Load, run

        arguments = self._arguments
        with served(self._repository(variant), pixels_on_cpu=by_cpu) as url:
            load = Load(
                "pixels", url, "", arguments.clients, arguments.seconds, warm_up=1, batch=arguments.pixels_batch
            )

            def add(section: str, name: str, load: Load) -> float:
                with watching() as gpu:
                    found = run(load, arguments.processes)
                batch = load.batch if load.client == "pixels" else None
                row = Row(section, name, batch, found.rate, found.p50, found.p99, errors=len(found.errors))
                self.rows.append(replace(row, **gpu))
                return found.rate

            if not by_cpu:
                add(PIXELS, variant.network, load)
            for size in arguments.sizes:
                if self._left() < 4 * arguments.seconds:
                    self.left_out.append(f"{JPEGS}, {size}, {name}: no time was left")
                    continue
                load = replace(load, client="grpc", photos=self._photos(size), batch=1)
                peak = add(f"{JPEGS}, {size}", f"{name}, at its peak", load)
                half = replace(load, rate=peak / 2 / arguments.processes)
                add(f"{JPEGS}, {size}", f"{name}, at half of its peak", half)

    def _photos(self, size: str) -> str:
        folder = self._models / f"photos-{size}"
        if not folder.is_dir():
            from .materials import make_photos

            make_photos(size, self._models)
        return str(folder)

    def _repository(self, variant: Variant) -> Path:
        return self._models / variant.name.replace(" ", "-")

    def _left(self) -> float:
        return float(self._deadline - time.monotonic())


@contextlib.contextmanager
def served(repository: Path, *, pixels_on_cpu: bool) -> Iterator[str]:
    """Serves a copy of a repository on free ports; gives its gRPC URL.

    Args:
        repository: It is not written to.
        pixels_on_cpu: Have the DALI step copy its pixels into the memory of the machine.
    """
    from google.protobuf import text_format

    from car_analyzer_server import Server, Settings
    from car_analyzer_server.repository import read_config

    from .clients import ADMIN_KEY

    with tempfile.TemporaryDirectory() as temporary:
        copy = shutil.copytree(repository, Path(temporary) / "model_repository")
        config = read_config(copy, "preprocess")
        if "pixels_on" in config.parameters:
            config.parameters["pixels_on"].string_value = json.dumps("cpu" if pixels_on_cpu else "gpu")
        else:
            config.instance_group[0].count = CORES
        (copy / "preprocess" / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
        with Server(Settings(copy, http_port=0, grpc_port=0, metrics_port=0, admin_key=ADMIN_KEY)) as server:
            print(f"  {server.origin}", file=sys.stderr)
            yield server.grpc_url


@contextlib.contextmanager
def watching() -> Iterator[dict[str, Any]]:
    """Fills in, when the body ends, the GPU's mean `utilisation` in percent and its highest `memory` in MB, if any."""
    seen: dict[str, Any] = {}
    if gpu_name() is None:
        yield seen
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop-ms=250"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield seen
        finally:
            process.terminate()
            readings = []
            for line in process.communicate()[0].splitlines():
                with contextlib.suppress(ValueError):
                    readings.append([float(part) for part in line.split(",")])
            if readings:
                busy, memory = zip(*readings, strict=True)
                seen.update(utilisation=statistics.fmean(busy), memory=max(memory))


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
    chosen = [each for each in VARIANTS if not arguments.variants or each.name in arguments.variants]
    models = (arguments.packed or arguments.out) / "models"
    if arguments.packed is None:
        from .gpu_pack import make_variants, pack

        if arguments.pack is not None:
            pack(arguments.pack, arguments.network, wheels=not arguments.without_wheels)
            return 0
        make_variants(models, arguments.network, chosen)
    device = gpu_name()
    machine = f"{device or 'no GPU'}; {platform.machine()}, {CORES} cores, Python {platform.python_version()}"
    print(machine, file=sys.stderr)
    if device is None:
        print("There is no GPU: everything runs on the CPU, which only shows that the script works.", file=sys.stderr)
    run = Run(arguments, models)
    run.measure(chosen)
    table = f"{machine}\n\n{as_tables(run.rows, run.parity, run.left_out)}\n"
    print(table)
    found = {"machine": machine, "command": sys.argv[1:], "figures": [asdict(row) for row in run.rows]}
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found | {"parity": run.parity, "left_out": run.left_out}, indent=1)
    (out / "gpu.json").write_text(text, encoding="utf-8")
    (out / "gpu.md").write_text(table, encoding="utf-8")
    if not run.rows:
        return 1
    best: dict[str, dict[str, list[float]]] = {}
    for row in run.rows:
        rates = best.setdefault(row.section, {}).setdefault(row.name, [0.0])
        rates[0] = max(*rates, row.rate)
    draw_bars(best, out / "gpu.png")
    print(f"written: {out / 'gpu.md'}, {out / 'gpu.png'}, {out / 'gpu.json'}", file=sys.stderr)
    return 0


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.gpu", __doc__, seconds=2, network="resnet18", out="build/gpu")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pack", type=Path, metavar="DIR", help="put all that is needed into DIR, and measure nothing")
    where.add_argument("--packed", type=folder, metavar="DIR", help="measure what was packed there")
    add = parser.add_argument
    add("--without-wheels", action="store_true", help="pack no Python packages")
    names = [each.name for each in VARIANTS]
    add("--variants", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}; default: all")
    add("--only", nargs="+", metavar="START", help="steps whose names start so, as 'served, cuda'; default: all")
    add("--sizes", nargs="+", choices=SIZES, default=SIZES, help="of photos; default: all")
    add("--batches", nargs="+", type=count, default=[1, 8, 32, 64, 128], help="of the bare networks")
    add("--pixels-batch", type=count, default=32, help="photos in a request; default: %(default)s")
    add("--clients", type=count, default=32, help="in each process of load; default: %(default)s")
    add("--processes", type=count, default=max(1, CORES // 4), help="of load; default: %(default)s")
    add("--budget", type=positive, default=570, help="seconds for all; default: %(default)s")
    add("--photos", type=folder, metavar="DIR", help="photographs for the parity of DALI and Pillow")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
