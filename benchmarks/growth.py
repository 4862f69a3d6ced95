"""How car-analyzer grows with callers, photo size, photos in a request and cores: figures, and a picture of them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from tqdm import tqdm

from car_analyzer_server import Server, Settings
from reliability.processes import usage

from .command_line import SIZES, make_parser
from .load import Load, run
from .materials import make_materials, make_photos
from .systems import CORES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EPILOG = """\
example:
  python -m benchmarks.growth --network tiny --out build/bench

exit codes: 0 measured, 2 wrong usage
"""
CALLERS = (1, 2, 4, 8, 16, 32, 64)
BATCHES = (1, 2, 4, 8, 16, 32)
Figures = dict[str, list[dict[str, float]]]
_RATE, _CALLERS = "photos a second", "callers at once"
# Kind of growth, what goes across, what goes up and in which unit, and their labels.
PANELS = (
    ("callers", "callers", "rate", 1, _CALLERS, _RATE),
    ("callers", "callers", "p99", 1, _CALLERS, "p99 of the latency, ms"),
    ("callers", "callers", "memory", 1e6, _CALLERS, "memory, MB"),
    ("sizes", "megapixels", "rate", 1, "megapixels of a photo, JPEG", _RATE),
    ("batches", "batch", "rate", 1, "photos in a request, two requests at once", _RATE),
    ("cores", "cores", "rate", 1, "cores for the service", _RATE),
)


def main() -> int:
    """Measures, and writes `growth.json` and `growth.png`."""
    arguments = make_parser("benchmarks.growth", __doc__, seconds=2, network="tiny", epilog=_EPILOG).parse_args()
    out: Path = arguments.out
    repository = make_materials(arguments.network, out / "materials").repository
    settings = Settings(repository, http_port=0, grpc_port=0, metrics_port=0, supervised=True)
    photos = {size: str(make_photos(size, out)) for size in SIZES}
    load = Load("grpc", "", photos["s"], seconds=arguments.seconds, warm_up=1)
    found: Figures = {}
    steps = len(CALLERS) + len(SIZES) + len(BATCHES) + CORES
    for kind, figures in tqdm(_measure(settings, load, photos), total=steps, disable=None):
        found.setdefault(kind, []).append(figures)
    (out / "growth.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    draw(found, out / "growth.png")
    print(json.dumps(found, indent=1))
    return 0


def _measure(settings: Settings, load: Load, photos: dict[str, str]) -> Iterator[tuple[str, dict[str, float]]]:
    with Server(settings) as server:
        load = replace(load, url=server.grpc_url)
        for callers in CALLERS:
            figures = _figures(replace(load, clients=callers))
            yield "callers", {"callers": callers, **figures, "memory": usage(server.pid).memory}
        for size, (width, height) in SIZES.items():
            yield "sizes", {"megapixels": width * height / 1e6, **_figures(replace(load, photos=photos[size]))}
        for batch in BATCHES:
            yield "batches", {"batch": batch, **_figures(replace(load, batch=batch, clients=2))}
    allowed = os.sched_getaffinity(0)
    for count in range(1, CORES + 1):
        # The service has some of the cores; the load comes from all.
        os.sched_setaffinity(0, sorted(allowed)[:count])
        try:
            with Server(settings) as server:
                os.sched_setaffinity(0, allowed)
                yield "cores", {"cores": count, **_figures(replace(load, url=server.grpc_url))}
        finally:
            os.sched_setaffinity(0, allowed)


def _figures(load: Load) -> dict[str, float]:
    answers = run(load)
    return {"rate": answers.rate, "p50": answers.p50, "p99": answers.p99}


def draw(found: Figures, file: Path) -> None:
    """Draws one panel for each kind of growth, and one for memory."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes: Any
    for axes, (kind, across, up, unit, xlabel, ylabel) in zip(figure.subplots(2, 3).ravel(), PANELS, strict=True):
        figures = found[kind]
        axes.plot([one[across] for one in figures], [one[up] / unit for one in figures], marker="o", color="tab:green")
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        axes.grid(alpha=0.3)
        if kind == "sizes":
            axes.set(xscale="log", yscale="log")
            axes.autoscale(axis="y")
        elif kind == "cores":
            axes.set_xticks([one["cores"] for one in figures])
        else:
            axes.set_xscale("log", base=2)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
