"""How car-analyzer grows with callers, photo size, photos in a request and cores: figures, and a picture of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from tqdm import tqdm
from tritonclient.grpc import service_pb2, service_pb2_grpc

from car_analyzer_server import Server, Settings
from reliability.processes import usage

from .materials import SIZES, make_materials, make_photos

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .materials import Materials

_EPILOG = """\
example:
  python -m benchmarks.growth --network tiny --out build/bench

exit codes: 0 measured, 2 wrong usage
"""
CALLERS = (1, 2, 4, 8, 16, 32, 64)
BATCHES = (1, 2, 4, 8, 16, 32)
Figures = list[dict[str, Any]]


def main() -> int:
    """Measures, and writes `growth.json` and `growth.png`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", default="tiny", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    materials = make_materials(arguments.network, out / "materials")
    files = {}
    for size in SIZES:
        files[size] = out / f"photos-{size}.pickle"
        files[size].write_bytes(pickle.dumps(make_photos(size)))
    with tqdm(total=len(CALLERS) + len(SIZES) + len(BATCHES) + _cores(), disable=None) as bar:
        found = {
            "callers": _by_callers(materials, files["s"], arguments.seconds, bar),
            "sizes": _by_size(materials, files, arguments.seconds, bar),
            "batches": _by_batch(materials, files["s"], arguments.seconds, bar),
            "cores": _by_cores(materials, files["s"], arguments.seconds, bar),
        }
    (out / "growth.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    draw(found, out / "growth.png")
    print(json.dumps(found, indent=1))
    return 0


def _by_callers(materials: Materials, photos: Path, seconds: float, bar: Any) -> Figures:
    found = []
    with _served(materials) as server:
        for callers in CALLERS:
            measured = _load(server.grpc_url, photos, callers, seconds)
            found.append({"callers": callers, **measured, "memory": usage(server.pid).memory})
            bar.update()
    return found


def _by_size(materials: Materials, files: dict[str, Path], seconds: float, bar: Any) -> Figures:
    found = []
    with _served(materials) as server:
        for size, (width, height) in SIZES.items():
            found.append({"megapixels": width * height / 1e6, **_load(server.grpc_url, files[size], 8, seconds)})
            bar.update()
    return found


def _by_batch(materials: Materials, photos: Path, seconds: float, bar: Any) -> Figures:
    found = []
    with _served(materials) as server:
        for batch in BATCHES:
            rate = _ask_in_batches(server.grpc_url, pickle.loads(photos.read_bytes()), batch, seconds)  # noqa: S301
            found.append({"batch": batch, "rate": rate})
            bar.update()
    return found


def _by_cores(materials: Materials, photos: Path, seconds: float, bar: Any) -> Figures:
    """The service on some of the cores; the load comes from all."""
    allowed, found = os.sched_getaffinity(0), []
    for count in range(1, _cores() + 1):
        os.sched_setaffinity(0, sorted(allowed)[:count])
        try:
            with _served(materials) as server:
                os.sched_setaffinity(0, allowed)
                found.append({"cores": count, **_load(server.grpc_url, photos, 8, seconds)})
        finally:
            os.sched_setaffinity(0, allowed)
        bar.update()
    return found


@contextlib.contextmanager
def _served(materials: Materials) -> Iterator[Server]:
    settings = Settings(materials.repository, http_port=0, grpc_port=0, metrics_port=0, supervised=True)
    with Server(settings) as server:
        yield server


def _load(url: str, photos: Path, callers: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", "grpc", url, str(photos)]
    command += [f"--clients={callers}", f"--seconds={seconds}"]
    measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    waited = sorted(measured["latencies_ms"])
    return {
        "rate": len(waited) / seconds,
        "p50": waited[len(waited) // 2] if waited else float("nan"),
        "p99": waited[int(0.99 * len(waited))] if waited else float("nan"),
    }


def _ask_in_batches(url: str, photos: list[bytes], batch: int, seconds: float) -> float:
    """Photos a second, two requests of so many photos in flight."""
    request = service_pb2.ModelInferRequest(model_name="car_analyzer")
    request.inputs.add(name="image", datatype="BYTES", shape=[batch, 1])
    content = (photos[number % len(photos)] for number in range(batch))
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(photo)) + photo for photo in content))
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(url.removeprefix("grpc://"), options) as channel, ThreadPoolExecutor(2) as pool:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        infer(request)
        end = time.perf_counter() + seconds

        def ask(_: int) -> int:
            answered = 0
            while time.perf_counter() < end:
                infer(request)
                answered += batch
            return answered

        return sum(pool.map(ask, range(2))) / seconds


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def draw(found: dict[str, Figures], file: Path) -> None:
    """Draws one panel for each kind of growth, and one for memory."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = figure.subplots(2, 3).ravel()

    def line(axes: Any, name: str, across: str, up: str, labels: tuple[str, str], unit: float = 1) -> None:
        figures = found[name]
        axes.plot([one[across] for one in figures], [one[up] / unit for one in figures], marker="o", color="tab:green")
        axes.set(xlabel=labels[0], ylabel=labels[1], ylim=(0, None))
        axes.grid(alpha=0.3)

    rate = "photos a second"
    line(panels[0], "callers", "callers", "rate", ("callers at once", rate))
    line(panels[1], "callers", "callers", "p99", ("callers at once", "p99 of the latency, ms"))
    line(panels[2], "callers", "callers", "memory", ("callers at once", "memory, MB"), 1e6)
    line(panels[3], "sizes", "megapixels", "rate", ("megapixels of a photo, JPEG", rate))
    line(panels[4], "batches", "batch", "rate", ("photos in a request, two requests at once", rate))
    line(panels[5], "cores", "cores", "rate", ("cores for the service", rate))
    for axes in panels[:3]:
        axes.set_xscale("log", base=2)
    panels[4].set_xscale("log", base=2)
    panels[3].set(xscale="log", yscale="log")
    panels[3].autoscale(axis="y")
    panels[5].set_xticks([one["cores"] for one in found["cores"]])
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
