"""Sends valid and invalid photos for a given time, and checks that memory, files and shared memory do not grow.

Triton and a gateway run as in production; photos reach them through gRPC, HTTP and the gateway at once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from tqdm import tqdm

from car_analyzer.command_line import positive

from .harness import Row, export_demo, make_parser, report
from .load import Load, gateway, sdk
from .photos.samples import encoded, with_size
from .processes import Usage, usage
from .reference import ReferencePhoto, reference_logits, reference_photos
from .service import Gateway, Service

if TYPE_CHECKING:
    from collections.abc import Iterable

_EPILOG = """\
example:
  python -m reliability.soak --minutes 60 --plot docs/soak.png
"""
_FORMATS = ("PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_WORKERS = 2  # of each of the three ways to the service
# How much more may be held at the end than after the warm-up.
_GROWTH = 1.05
# A few more connections are no leak. Triton's Python backend keeps shared memory for the largest batch so far; the
# largest photo has 20 MB, and any of them can meet in one batch.
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
    """Resources at one moment, and the outcomes since the sample before.

    Attributes:
        minutes: Since the start.
        triton: `car-analyzer serve` and its descendants.
        gateway: The gateway.
        photos: How many outcomes there were.
        lost: How many of them were not correct.
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
    parser = make_parser("soak", __doc__, _EPILOG)
    parser.add_argument("--minutes", type=positive, default=60.0, help="how long; default: %(default)g")
    parser.add_argument("--rate", type=positive, help="photos a second altogether; default: as fast as answers come")
    parser.add_argument(
        "--every", type=positive, default=5.0, metavar="SECONDS", help="between samples; default: %(default)g"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw memory, latency and losses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples")
    arguments = parser.parse_args()
    samples, errors = _run(arguments.minutes * 60, arguments.every, arguments.rate)
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
    early, late = samples[tenth : 2 * tenth] or samples, samples[-tenth:]
    photos, lost = sum(sample.photos for sample in samples), sum(sample.lost for sample in samples)
    median, p99 = (statistics.median(getattr(sample, name) for sample in samples) for name in ("median", "p99"))
    rows = [Row("photos answered as they should be", photos, lost, f"median {median:.0f} ms, p99 {p99:.0f} ms")]
    for part, what, unit, name in _WATCHED:
        before, after = (_floor(getattr(getattr(sample, part), what) for sample in few) for few in (early, late))
        grew = after > before * _GROWTH + _SLACK.get(what, 0)
        share = f"{(after / before - 1) * 100:+.1f} %" if before else "none before"
        note = f"{before / unit:,.1f} -> {after / unit:,.1f} ({share})"
        rows.append(Row(f"{part}: {name}", len(samples), int(grew), note))
    return rows


def _floor(values: Iterable[int]) -> int:
    """What is held while few photos are in flight: a tenth of the values are lower."""
    ordered = sorted(values)
    return ordered[len(ordered) // 10]


@functools.cache
def valid_photos() -> tuple[ReferencePhoto, ...]:
    """The sample photos, one of them in every other format, and one of 12 megapixels."""
    picture = Image.open(io.BytesIO(reference_photos()[0].content))
    others = {f"photo.{kind.lower()}": encoded(picture, kind) for kind in _FORMATS}
    others["large.jpg"] = encoded(picture.resize((4000, 3000)), "JPEG")
    converted = (ReferencePhoto(name, content, reference_logits(content)) for name, content in others.items())
    return (*reference_photos(), *converted)


@functools.cache
def invalid_photos() -> tuple[ReferencePhoto, ...]:
    """Photos that must be rejected."""
    photo = reference_photos()[0].content
    png = encoded(Image.open(io.BytesIO(photo)), "PNG")
    contents = {
        "empty.jpg": b"",
        "text.jpg": b"this is no photo",
        "truncated.jpg": photo[: len(photo) // 2],
        "truncated.png": png[:5000],
        "bomb.png": with_size(png, 50_000, 50_000),
        "too_large.jpg": photo + bytes(20_000_000),
    }
    return tuple(ReferencePhoto(name, content, None) for name, content in contents.items())


def _run(seconds: float, every: float, rate: float | None) -> tuple[list[Sample], list[str]]:
    # Valid photos three times as often as invalid ones.
    photos = [*valid_photos() * 3, *invalid_photos()]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        service = stack.enter_context(Service(export_demo(Path(folder) / "model_repository")))
        front = stack.enter_context(Gateway(service.addresses["grpc"]))
        routes = ((service.addresses["grpc"], sdk), (service.addresses["http"], sdk), (front.url, gateway))
        share = rate and rate / len(routes)
        loads = [Load(url, photos, _WORKERS, rate=share, transport=transport) for url, transport in routes]
        for load in loads:
            stack.enter_context(load)
        samples = _sample(loads, service.pid, front.pid, seconds, every)
    return samples, sorted({error for load in loads for error in load.errors()})


def _sample(loads: list[Load], triton: int, front: int, seconds: float, every: float) -> list[Sample]:
    samples: list[Sample] = []
    start = time.monotonic()
    seen = [0] * len(loads)
    with tqdm(total=round(seconds), unit="s", disable=None) as bar:
        while (now := time.monotonic() - start) < seconds:
            time.sleep(min(every, seconds - now))
            ended = []
            for position, load in enumerate(loads):
                count = len(load.outcomes)
                ended += load.outcomes[seen[position] : count]
                seen[position] = count
            latencies = sorted(outcome.seconds * 1000 for outcome in ended) or [0.0]
            lost = sum(outcome.kind != "correct" for outcome in ended)
            minutes = (time.monotonic() - start) / 60
            median, p99 = statistics.median(latencies), latencies[int(len(latencies) * 0.99)]
            samples.append(Sample(minutes, usage(triton), usage(front), len(ended), lost, median, p99))
            bar.update(round(minutes * 60) - bar.n)
    return samples


if __name__ == "__main__":
    sys.exit(main())
