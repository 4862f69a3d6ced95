"""Drives good and bad photos for a given time, and shows whether memory, files or shared memory grow.

Triton and a gateway run as people run them; photos reach them through gRPC, HTTP and the gateway at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .gateway_stream import GatewayStream
from .known import EXAMPLES
from .mixture import bad_photos, good_photos
from .processes import Usage, usage
from .service import die_with_parent
from .stream import Stream
from .table import Row, report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EPILOG = """\
example:
  python -m reliability.soak --minutes 60 --plot docs/soak.png

exit codes: 0 nothing grew and nothing was lost, 1 something did, 2 wrong usage
"""
_WORKERS = 2  # of each of the three ways to the service
# What may be held more at the end than after the warm-up.
_GROWTH = 1.05
# A handful of connections more is no growth. Triton's Python backend keeps shared memory for the largest batch that it
# ever met; the largest photo has 20 MB, and any of them can meet in one batch.
_SLACK = {"files": 8, "shared": 3 * _WORKERS * 20e6}
_WATCHED = (
    ("triton", "memory", 1e6, "MB of memory"),
    ("triton", "files", 1, "open files"),
    ("triton", "shared", 1e6, "MB shared"),
    ("gateway", "memory", 1e6, "MB of memory"),
    ("gateway", "files", 1, "open files"),
)


@dataclass(frozen=True)
class Sample:
    """What was held at one moment, and what became of the photos since the moment before.

    Attributes:
        minutes: Since the start.
        triton: `car-analyzer serve` and everything under it.
        gateway: The gateway.
        photos: How many ended.
        lost: How many of them ended in another way than they should.
        median: Of their latencies, in milliseconds.
        p99: Of their latencies, in milliseconds.
    """

    minutes: float
    triton: Usage
    gateway: Usage
    photos: int
    lost: int
    median: float
    p99: float


def main() -> int:
    """Runs the trial; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.soak",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; default: %(default)g")
    parser.add_argument("--rate", type=float, help="photos a second in all; default: as fast as answers come")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="between samples; default: %(default)g"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw memory, latency and losses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.every <= 0 or (arguments.rate is not None and arguments.rate <= 0):
        parser.error("--minutes, --every and --rate are numbers above zero")
    samples, errors = _drive(arguments.minutes * 60, arguments.every, arguments.rate)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(sample) for sample in samples]) + "\n", encoding="utf-8")
    if arguments.plot:
        from .soak_plot import draw

        draw(samples, arguments.plot)
        print(f"drawn: {arguments.plot}", file=sys.stderr)
    for error in errors[:20]:
        print(f"lost: {error}", file=sys.stderr)
    return report(judge(samples))


def judge(samples: list[Sample]) -> list[Row]:
    """Compares the last tenth of the samples with the second tenth: the first is the warm-up."""
    tenth = max(1, len(samples) // 10)
    early, late = samples[tenth : 2 * tenth], samples[-tenth:]
    photos, lost = sum(sample.photos for sample in samples), sum(sample.lost for sample in samples)
    rows = [Row("photos answered as they should be", photos, lost, _latencies(samples))]
    for part, what, unit, name in _WATCHED:
        before, after = (_floor(getattr(getattr(sample, part), what) for sample in few) for few in (early, late))
        grew = after > before * _GROWTH + _SLACK.get(what, 0)
        share = f"{(after / before - 1) * 100:+.1f} %" if before else "none before"
        rows.append(
            Row(f"{part}: {name}", len(samples), int(grew), f"{before / unit:,.1f} -> {after / unit:,.1f} ({share})")
        )
    return rows


def _floor(values: Iterable[int]) -> int:
    """What is held while few photos are in flight: a tenth of the values are lower."""
    ordered = sorted(values)
    return ordered[len(ordered) // 10]


def _latencies(samples: list[Sample]) -> str:
    median = statistics.median(sample.median for sample in samples)
    return f"median {median:.0f} ms, p99 {statistics.median(sample.p99 for sample in samples):.0f} ms"


def _drive(seconds: float, every: float, rate: float | None) -> tuple[list[Sample], list[str]]:
    # Good photos three times as often as bad ones.
    photos = [*good_photos(), *good_photos(), *good_photos(), *bad_photos()]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        repository = Path(folder) / "model_repository"
        export(plan_export(Spec.from_file(EXAMPLES / "demo.toml")), repository)
        ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
        triton, urls = running.enter_context(_started("serve", f"--repository={repository}", *ports))
        gateway, where = running.enter_context(
            _started("gateway", "--port=0", f"--url={urls['grpc']}", "--log-level=error")
        )
        share = None if rate is None else rate / 3
        streams = [
            running.enter_context(Stream(url, photos, workers=_WORKERS, rate=share))
            for url in (urls["grpc"], urls["http"])
        ]
        streams.append(running.enter_context(GatewayStream(where["gateway"], photos, workers=_WORKERS, rate=share)))
        samples = _sample(streams, triton, gateway, seconds, every)
    return samples, sorted({error for stream in streams for error in stream.errors()})


def _sample(streams: list[Stream], triton: int, gateway: int, seconds: float, every: float) -> list[Sample]:
    samples: list[Sample] = []
    start = time.monotonic()
    seen = [0] * len(streams)
    with tqdm(total=round(seconds), unit="s", disable=None) as bar:
        while (now := time.monotonic() - start) < seconds:
            time.sleep(min(every, seconds - now))
            ended = []
            for position, stream in enumerate(streams):
                count = len(stream.outcomes)
                ended += stream.outcomes[seen[position] : count]
                seen[position] = count
            waited = sorted(outcome.seconds * 1000 for outcome in ended) or [0.0]
            lost = sum(outcome.kind != "right" for outcome in ended)
            minutes = (time.monotonic() - start) / 60
            median, p99 = statistics.median(waited), waited[int(len(waited) * 0.99)]
            samples.append(Sample(minutes, usage(triton), usage(gateway), len(ended), lost, median, p99))
            bar.update(round(minutes * 60) - bar.n)
    return samples


@contextlib.contextmanager
def _started(*command: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Runs a command of car-analyzer: its process id, and what it prints when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "car_analyzer", *command, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"car-analyzer {command[0]} did not start")
        yield process.pid, json.loads(line)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
