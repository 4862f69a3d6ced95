"""Collects photos under load, then onto a full disk and into a dead bucket: no answer may be lost.

The collection must keep every unsure photo and stay within its quotas at every moment, seen from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import shutil
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

from .harness import Row, SkipError, add_repository, announce, export_demo, make_parser, report
from .injection import unshare
from .reference import EXAMPLES, LABELS
from .service import Gateway, Service, read_metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EPILOG = """\
examples:
  python -m reliability.collection
  python -m reliability.collection --count 2000 --quota 100
"""
# Between these probabilities, `condition` is unsure: about one of the sample photos, which is 96 % damaged.
BAND = (0.03, 0.97)
UNSURE = "clean_damaged_2.jpg"
UNSURE_SHARE = 0.03
ROUND = 250
WORKERS = 4
# Longer than a gateway waits for its storage at the end.
STOP_S = 15.0
QUIET = ("--log-level=warning", "--access-log=off")
_SMALL_DISK = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = make_parser("collection", __doc__, EPILOG)
    parser.add_argument("--count", type=int, default=10_000, help="photos for the quotas; default: %(default)s")
    parser.add_argument("--quota", type=int, default=500, help="photos that are kept; default: %(default)s")
    add_repository(parser)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="car-analyzer-collection-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        repository = folder / "model_repository"
        if arguments.repository:
            shutil.copytree(arguments.repository, repository)
        else:
            export_demo(repository)
        _add_unsure_answers(repository)
        triton = stack.enter_context(Service(repository)).addresses["grpc"]
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
    with FolderSampler(folder) as sampler, plain, collecting:
        gateways = [("with", collecting), ("without", plain)]
        for start in range(0, count, ROUND):
            photos = list(itertools.islice(turns, min(ROUND, count - start)))
            gateways.reverse()
            for name, gateway in gateways:
                answers = asyncio.run(_send(gateway.url, photos))
                seconds[name] += [duration for duration, _ in answers]
                lost += sum(labels is None for _, labels in answers)
                unsure += sum("unsure" in (labels or ()) for _, labels in answers) if name == "with" else 0
    kept = [path.name for path in folder.rglob("*.jpg")]
    kept_unsure = sum("-unsure-" in name for name in kept)
    p99 = {name: float(np.percentile(values, 99)) for name, values in seconds.items()}
    note = f"p99 with a collection is {p99['with'] / p99['without']:.2f} of that without"
    rows = [
        Row("answers", 2 * count, lost, note),
        Row(
            "unsure photos", unsure, min(unsure, quota) - kept_unsure, f"{kept_unsure} kept, {len(kept)} photos in all"
        ),
        Row(
            "quotas",
            sampler.samples,
            (sampler.photos > quota) + (sampler.bytes > max_bytes),
            f"at most {sampler.photos} photos of {quota}, {sampler.bytes:,} bytes of {max_bytes:,}",
        ),
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
    return Row(
        name, count, broken, f"{kept:g} kept, {dropped:g} dropped, warnings: {lines}, stopped in {stopped:.1f} s"
    )


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
    photos = {
        unsure: [file.read_bytes() for file in files if (file.name == UNSURE) == unsure] for unsure in (True, False)
    }
    while True:
        yield chance.choice(photos[chance.random() < UNSURE_SHARE])


def _add_unsure_answers(repository: Path) -> None:
    file = repository / "car_analyzer" / "config.pbtxt"
    config = text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    heads = json.loads(config.parameters["heads"].string_value)
    heads["condition"]["unsure"] = BAND
    config.parameters["heads"].string_value = json.dumps(heads)
    file.write_text(text_format.MessageToString(config), encoding="utf-8")


class FolderSampler:
    """Lists a folder again and again, as another program sees it. A context manager.

    Attributes:
        samples: How often.
        photos: The most photos at a moment.
        bytes: The most bytes at a moment.
    """

    def __init__(self, folder: Path) -> None:
        self.samples = self.photos = self.bytes = 0
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> FolderSampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            sizes: dict[str, int] = {}
            for path in self._folder.rglob("*.*"):
                with contextlib.suppress(FileNotFoundError):
                    sizes[path.name] = path.stat().st_size
            self.samples += 1
            self.photos = max(self.photos, sum(name.endswith(".jpg") for name in sizes))
            self.bytes = max(self.bytes, sum(sizes.values()))


if __name__ == "__main__":
    sys.exit(main())
