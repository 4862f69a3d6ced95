"""Collects photos under load, then onto a full disk and into a dead bucket: no answer may be lost.

The collection must keep every unsure photo and stay within its quotas at every moment, seen from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from .harness import Row, SkipError, announce, export_demo, make_parser, report
from .injection import unshare
from .reference import EXAMPLES, LABELS
from .service import Gateway, Service, read_metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Between these probabilities, `condition` is unsure: about one of the sample photos, which is 96 % damaged.
BAND = (0.03, 0.97)
UNSURE = "clean_damaged_2.jpg"
UNSURE_SHARE = 0.03
ROUND = 250
WORKERS = 4
STOP_S = 15.0  # longer than a gateway waits for its storage
QUIET = ("--log-level=warning", "--access-log=off")
_SMALL_DISK = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = make_parser("collection", __doc__)
    parser.add_argument("--count", type=int, default=10_000, help="photos for the quotas; default: %(default)s")
    parser.add_argument("--quota", type=int, default=500, help="photos that are kept; default: %(default)s")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="car-analyzer-collection-") as name:
        folder = Path(name)
        repository = folder / "model_repository"
        export_demo(repository)
        _add_unsure_answers(repository)
        with Service(repository) as service:
            triton = service.addresses["grpc"]
            rows = try_quotas(triton, folder / "kept", arguments.count, arguments.quota)
            rows.append(announce(try_full_disk(triton, folder / "disk", arguments.count // 10)))
            rows.append(announce(try_dead_bucket(triton, arguments.count // 10)))
    return report(rows)


def try_quotas(triton: str, folder: Path, count: int, quota: int) -> list[Row]:
    """Sends each photo to a gateway with and to one without a collection, in turns."""
    turns = _make_turns()
    max_bytes = quota * 100_000
    words = (f"--collect-photos={quota}", f"--collect-bytes={max_bytes}", "--collect-share=100%")
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    unsure = lost = 0
    plain = Gateway(triton, *QUIET)
    collecting = Gateway(triton, *QUIET, f"--collect={folder}", *words)
    with _sampled(folder) as samples, plain, collecting:
        gateways = [("with", collecting), ("without", plain)]
        for start in range(0, count, ROUND):
            photos = list(itertools.islice(turns, min(ROUND, count - start)))
            gateways.reverse()
            for name, gateway in gateways:
                answers = asyncio.run(_send(gateway.url, photos))
                seconds[name] += [duration for duration, _ in answers]
                lost += sum(labels is None for _, labels in answers)
                unsure += sum("unsure" in (labels or ()) for _, labels in answers) if name == "with" else 0
    kept = [name for name in _list(folder) if name.endswith(".jpg")]
    kept_unsure = sum("-unsure-" in name for name in kept)
    ratio = np.percentile(seconds["with"], 99) / np.percentile(seconds["without"], 99)
    most_photos, most_bytes = (max(numbers) for numbers in zip(*samples, strict=True))
    over = (most_photos > quota) + (most_bytes > max_bytes)
    note = f"at most {most_photos} photos of {quota}, {most_bytes:,} bytes of {max_bytes:,}"
    rows = [
        Row("answers", 2 * count, lost, f"p99 with a collection is {ratio:.2f} of that without"),
        Row("unsure", unsure, min(unsure, quota) - kept_unsure, f"{kept_unsure} kept, {len(kept)} photos in all"),
        Row("quotas", len(samples), over, note),
    ]
    return [announce(row) for row in rows]


def try_full_disk(triton: str, folder: Path, count: int) -> Row:
    """Collects onto a disk of one megabyte that only the gateway sees."""
    folder.mkdir()
    try:
        prefix = [*unshare(), "--mount", "sh", "-c", _SMALL_DISK, str(folder)]
    except SkipError as error:
        return Row("full disk", 0, 0, str(error))
    gateway = Gateway(triton, *QUIET, f"--collect={folder}", "--collect-share=100%", prefix=prefix)
    return _try_trouble("full disk", gateway, count)


def try_dead_bucket(triton: str, count: int) -> Row:
    """Collects into an FTP server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ftp://127.0.0.1:{silent.getsockname()[1]}/cars"
        gateway = Gateway(triton, *QUIET, f"--collect={url}", "--collect-share=100%")
        return _try_trouble("dead bucket", gateway, count)


def _try_trouble(name: str, gateway: Gateway, count: int) -> Row:
    photos = list(itertools.islice(_make_turns(), count))
    with gateway:
        lost = sum(labels is None for _, labels in asyncio.run(_send(gateway.url, photos)))
        metrics = f"{gateway.url}/metrics"
        kept = sum(value for _, value in read_metric(metrics, "car_analyzer_collected_photos_total"))
        dropped = sum(value for _, value in read_metric(metrics, "car_analyzer_collection_dropped_total"))
        start = time.monotonic()
        code = gateway.stop()
        stopped = time.monotonic() - start
    lines = sum("photos are not collected" in line for line in gateway.lines)
    broken = lost + (code != 0) + (stopped > STOP_S)
    note = f"{kept:g} kept, {dropped:g} dropped, warnings: {lines}, stopped in {stopped:.1f} s"
    return Row(name, count, broken, note)


async def _send(url: str, photos: Sequence[bytes]) -> list[tuple[float, list[str] | None]]:
    """Sends photos, some at a time: how long each took, and its labels; None if it was not answered."""
    answers: list[tuple[float, list[str] | None]] = []
    waiting = iter(photos)
    async with aiohttp.ClientSession(url, headers={"Content-Type": "image/jpeg"}) as session:

        async def work() -> None:
            for photo in waiting:
                start = time.monotonic()
                async with session.post("/analyze", data=photo) as response:
                    answer = await response.json()
                labels = [answer[head] for head in LABELS] if response.status == 200 else None
                answers.append((time.monotonic() - start, labels))

        await asyncio.gather(*(work() for _ in range(WORKERS)))
    return answers


def _make_turns() -> Iterator[bytes]:
    """Photos without end, of which the network is unsure about some."""
    chance = random.Random(1)
    files = sorted((EXAMPLES / "photos").glob("*.jpg"))
    unsure = [file.read_bytes() for file in files if file.name == UNSURE]
    others = [file.read_bytes() for file in files if file.name != UNSURE]
    while True:
        yield chance.choice(unsure if chance.random() < UNSURE_SHARE else others)


def _add_unsure_answers(repository: Path) -> None:
    file = repository / "car_analyzer" / "config.pbtxt"
    config = text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    heads = json.loads(config.parameters["heads"].string_value)
    heads["condition"]["unsure"] = BAND
    config.parameters["heads"].string_value = json.dumps(heads)
    file.write_text(text_format.MessageToString(config), encoding="utf-8")


@contextlib.contextmanager
def _sampled(folder: Path) -> Iterator[list[tuple[int, int]]]:
    """Lists a folder again and again, as another program sees it: photos and bytes at a moment."""
    samples: list[tuple[int, int]] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            # What is in two listings was there between them.
            sizes = dict(_list(folder).items() & _list(folder).items())
            samples.append((sum(name.endswith(".jpg") for name in sizes), sum(sizes.values())))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _list(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in folder.rglob("*.*"):
        with contextlib.suppress(FileNotFoundError):
            sizes[path.name] = path.stat().st_size
    return sizes


if __name__ == "__main__":
    sys.exit(main())
