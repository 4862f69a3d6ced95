"""`python -m benchmarks.gpu`: what one GPU serves, beside what its parts can do alone.

On a machine with a network, pack everything that is needed, with a Python:

    python -m benchmarks.gpu --pack build/gpu

Copy `build/gpu/parts`, one by one if need be, to the machine with the GPU, which needs no network, and run `measure.sh`
there. In a checkout with a GPU, `python -m benchmarks.gpu` is enough.

What cannot run (no CUDA, no TensorRT, no DALI, no time left) is left out and named. All figures are written after each
step; a second run with the same options and `--out` continues with the steps that are missing. Without a GPU everything
runs on the CPU, which shows that the script works, and nothing else.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from car_analyzer.command_line import count, positive

from .command_line import folder, make_parser
from .gpu_report import DECODER, JPEGS, NETWORKS, PARITY, PEAK, PIXELS, Row, as_tables, best_rates
from .gpu_served import Loader, Served, served, tritonserver
from .gpu_variants import SIZES, VARIANTS, Variant
from .load import Load
from .nvidia_smi import gpu_name, watching
from .report import draw_bars
from .systems import CORES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from car_analyzer_server import Server

_DECODER_BATCH = 64
_FIRST = 2  # as many variants are measured with all photo sizes, and before PyTorch
_SECONDS_TO_START = 20
_LOAD_SECONDS = 3  # what a load takes besides what it measures
# Options that change figures: a run that continues another one needs the same.
_SETTINGS = ("seconds", "sizes", "batches", "pixels_batch", "callers", "processes", "photos")


class Run:
    """One run: what was found, and what was left out and why."""

    def __init__(self, arguments: argparse.Namespace, models: Path) -> None:
        self.rows: list[Row] = []
        self.parity: list[dict[str, object]] = []
        self.left_out: list[str] = []
        self._arguments = arguments
        self._models = models
        self._deadline = time.monotonic() + arguments.budget
        self._device = 0 if (gpu := gpu_name()) else None
        self._network = (models / "network").read_text(encoding="utf-8")
        self._loader = Loader(arguments.out / "environments", arguments.processes)
        self._done: list[str] = []
        python = f"{platform.machine()}, {CORES} cores, Python {platform.python_version()}"
        self.machine = f"{gpu or 'no GPU'}; {python}; two {self._network}; {tritonserver()}; {self._loader}"
        self._settings = {name: str(getattr(arguments, name)) for name in _SETTINGS}

    def resume(self) -> None:
        """Takes over the figures of an earlier run on this machine, and skips the steps that it completed."""
        file: Path = self._arguments.out / "gpu.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if (found.get("machine"), found.get("settings")) != (self.machine, self._settings):
            return
        self._done = found["done"]
        self.rows = [Row(**row) for row in found["figures"]]
        self.parity = found["parity"] if PARITY in self._done else []
        print(f"continues {file}, which has {len(self._done)} steps", file=sys.stderr)

    def measure(self, variants: list[Variant]) -> None:
        """Measures everything: the most informative variants first, and of each the parts before the whole."""
        there = [variant for variant in variants if self._repository(variant).is_dir()]
        self.left_out += [f"{each.name}: it was not exported" for each in variants if each not in there]
        sizes, batches = self._arguments.sizes, self._arguments.batches
        self._measure_decoder(sizes[0])
        for position, variant in enumerate(there):
            if position == _FIRST:
                self._measure_others(there[0])
            if not variant.ablation and variant.network not in {each.network for each in there[:position]}:
                repository = str(self._repository(variant))
                self._measure_part(NETWORKS, variant.network, "networks", repository=repository, batches=batches)
            some = sizes if position < _FIRST else sizes[:1]
            self._step(f"served, {variant.name}", partial(self._served, variant, some))
        if there and len(there) <= _FIRST:
            self._measure_others(there[0])
        # Compilation takes long for each batch.
        self._measure_pytorch("compiled", batches[::2])

    def _measure_others(self, first: Variant) -> None:
        self._measure_pytorch("eager", self._arguments.batches)
        self._step(PARITY, partial(self._parity, first))
        for size in self._arguments.sizes[1:]:
            self._measure_decoder(size)

    def _measure_decoder(self, size: str) -> None:
        self._measure_part(f"{DECODER}, {size}", "", "decoder", photos=self._photos(size), batch=_DECODER_BATCH)

    def _measure_pytorch(self, how: str, batches: list[int]) -> None:
        name = f"PyTorch {how}, {'fp32' if self._device is None else 'fp16'}"
        given = {"network": self._network, "compiled": how == "compiled", "batches": batches}
        self._measure_part(NETWORKS, name, "pytorch", python=self._arguments.pytorch, **given)

    def _step(self, name: str, run: Callable[[], None]) -> None:
        only = self._arguments.only
        if name in self._done or (only and not any(name.startswith(start) for start in only)):
            return
        if self._left() < _SECONDS_TO_START:
            self.left_out.append(f"{name}: no time was left")
            return
        print(f"{name} ...", file=sys.stderr)
        # A step that was interrupted is measured again.
        self.rows = [row for row in self.rows if row.step != name]
        before = len(self.rows)
        try:
            run()
            self._done.append(name)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.left_out.append(f"{name}: {reason}")
            print(f"left out: {name}: {reason}", file=sys.stderr)
        self.rows[before:] = [replace(row, step=name) for row in self.rows[before:]]
        self.write()

    def write(self) -> str:
        """Writes the table and all figures; returns the table."""
        table = f"{self.machine}\n\n{as_tables(self.rows, self.parity, self.left_out)}\n"
        found: dict[str, Any] = {
            "machine": self.machine,
            "command": sys.argv[1:],
            "settings": self._settings,
            "done": self._done,
        }
        found |= {"figures": [asdict(row) for row in self.rows], "parity": self.parity, "left_out": self.left_out}
        for name, text in (("gpu.json", json.dumps(found, indent=1)), ("gpu.md", table)):
            unfinished: Path = self._arguments.out / f"{name}.unfinished"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(self._arguments.out / name)
        return table

    def _measure_part(self, section: str, name: str, part: str, python: str = sys.executable, **given: Any) -> None:
        def run() -> None:
            with watching() as gpu:
                found = self._part(part, python, seconds=self._arguments.seconds, **given)
            for one in found:
                row = Row(section, one.get("what", name), one.get("batch"), one["rate"], one["p50"], one["p99"])
                self.rows.append(replace(row, **gpu))

        self._step(f"{section}, {name}".removesuffix(", "), run)

    def _parity(self, variant: Variant) -> None:
        photos = str(self._arguments.photos or self._photos(self._arguments.sizes[0]))
        self.parity += self._part("parity", sys.executable, photos=photos, repository=str(self._repository(variant)))

    def _part(self, part: str, python: str, **given: Any) -> list[dict[str, Any]]:
        """Runs a part in a process of its own: its GPU memory is free afterwards, and it can crash alone."""
        from .gpu_parts import MISSING

        command = [python, "-m", "benchmarks.gpu_parts", part, json.dumps(given | {"device": self._device})]
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

    def _served(self, variant: Variant, sizes: list[str]) -> None:
        """A whole Triton: pixels in, and JPEGs in, at several loads."""
        arguments = self._arguments
        with served(self._repository(variant), variant, arguments.official_backend, self._left()) as server:
            if not variant.ablation:
                callers = arguments.clients * arguments.processes
                load = Load("pixels", "", "", callers, arguments.seconds, warm_up=1, batch=arguments.pixels_batch)
                self._add(PIXELS, variant.network, self._loaded(server, load), load)
            for size in sizes:
                self._find_peak(server, variant, size)

    def _find_peak(self, server: Server, variant: Variant, size: str) -> None:
        """One caller, then more and more, then half the rate of the peak."""
        section, name = f"{JPEGS}, {size}", variant.name
        load = Load("grpc", "", self._photos(size), 1, self._arguments.seconds, warm_up=1)
        self._add(section, f"{name}, 1 caller", self._loaded(server, load), load)
        # Larger photos need fewer callers: each takes longer.
        callers = self._arguments.callers
        found: dict[Load, tuple[Served, dict[str, Any]]] = {}
        try:
            for number in callers[: max(1, len(callers) - list(SIZES).index(size))]:
                each = replace(load, clients=number)
                found[each] = self._loaded(server, each)
        finally:  # what is known when the time is over
            peak = max(found, key=lambda each: found[each][0].answers.rate, default=None)
            for each, one in found.items():
                what = PEAK if each is peak else f"{each.clients} callers"
                self._add(section, f"{name}, {what}", one, each)
        if peak:
            half = replace(peak, rate=found[peak][0].answers.rate / 2)
            self._add(section, f"{name}, at half of its peak", self._loaded(server, half), half)

    def _loaded(self, server: Server, load: Load) -> tuple[Served, dict[str, Any]]:
        if self._left() < load.seconds + _LOAD_SECONDS:
            raise RuntimeError("no time was left for all of it")
        with watching() as gpu:
            return self._loader.send(server, load, self._left()), gpu

    def _add(self, section: str, name: str, found: tuple[Served, dict[str, Any]], load: Load) -> None:
        (one, gpu), batch = found, load.batch if load.client == "pixels" else None
        row = Row(section, name, batch, one.answers.rate, one.answers.p50, one.answers.p99, **gpu)
        callers = None if load.rate else load.clients
        self.rows.append(
            replace(row, errors=len(one.answers.errors), callers=callers, steps=dict(one.steps), cores=one.cores)
        )

    def _photos(self, size: str) -> str:
        folder = self._models / f"photos-{size}"
        if not folder.is_dir():
            from .materials import make_photos

            make_photos(size, self._models, SIZES[size])
        return str(folder)

    def _repository(self, variant: Variant) -> Path:
        return self._models / variant.folder

    def _left(self) -> float:
        return float(self._deadline - time.monotonic())


def main() -> int:
    """Packs, or measures; prints the table and writes it with the picture and all figures."""
    arguments = _parse()
    chosen = [each for each in VARIANTS if not arguments.variants or each.name in arguments.variants]
    if arguments.pack is not None:
        return _pack(arguments, chosen)
    models = (arguments.packed or arguments.out) / "models"
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if arguments.packed is None:
        from .gpu_pack import make_variants

        make_variants(models, arguments.network, chosen)
    run = Run(arguments, models)
    print(run.machine, file=sys.stderr)
    if gpu_name() is None:
        print("There is no GPU: everything runs on the CPU, which only shows that the script works.", file=sys.stderr)
    run.resume()
    run.measure(chosen)
    print(run.write())
    if not run.rows:
        return 1
    draw_bars(best_rates(run.rows), out / "gpu.png")
    print(f"written: {out / 'gpu.md'}, {out / 'gpu.png'}, {out / 'gpu.json'}", file=sys.stderr)
    return 0


def _pack(arguments: argparse.Namespace, variants: list[Variant]) -> int:
    from .gpu_pack import PackError, pack

    options = {name: getattr(arguments, name) for name in ("packages", "architecture", "official_backend")}
    try:
        pack(arguments.pack, arguments.network, variants, size=arguments.part_size * 1_000_000, **options)
    except PackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.gpu", __doc__, seconds=2, network="resnet18", out="build/gpu")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pack", type=folder, metavar="DIR", help="pack all that is needed in DIR, and measure nothing")
    where.add_argument("--packed", type=folder, metavar="DIR", help="measure what was packed there")
    add = parser.add_argument
    packing = "with --pack: "
    add("--part-size", type=count, default=60, help=f"{packing}megabytes of a part; default: %(default)s")
    add("--architecture", type=count, default=90, help=f"{packing}of the GPU; default: %(default)s (H100, H200)")
    add("--packages", nargs="+", default=(), metavar="NAME", help=f"{packing}more, as 'onnxruntime-gpu[cuda,cudnn]'")
    names = [each.name for each in VARIANTS]
    add("--variants", nargs="+", choices=names, metavar="NAME", help=f"of {'; '.join(names)}. Default: all")
    add("--only", nargs="+", metavar="START", help="steps whose names start so, as 'served, cuda'; default: all")
    add("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="of photos; default: all")
    add("--batches", nargs="+", type=count, default=[1, 8, 32, 64, 128], help="of the bare networks")
    add("--pixels-batch", type=count, default=32, help="photos in a request; default: %(default)s")
    add("--callers", nargs="+", type=count, default=[32, 64, 128, 192], help="to find the peak; default: %(default)s")
    add("--clients", type=count, default=32, help="in each process of load; default: %(default)s")
    add("--processes", type=count, default=max(1, CORES // 4), help="of our own load; default: %(default)s")
    add("--budget", type=positive, default=570, help="seconds for all; default: %(default)s")
    add("--photos", type=folder, metavar="DIR", help="photographs for the parity of DALI and Pillow")
    add("--pytorch", default=sys.executable, metavar="FILE", help="a Python with PyTorch; default: this one")
    add(
        "--official-backend",
        type=folder,
        metavar="DIR",
        help="a folder with libtriton_onnxruntime.so, to be compared with ours",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
