"""Serves a repository with given settings, and measures throughput and latency."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from car_analyzer import AsyncCarAnalyzer, PhotoError
from car_analyzer_server import Server, Settings

from ..repository.config import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .choice import Choice

WARM_UP_S = 1.0


@dataclass(frozen=True)
class Point:
    """The measurement with a number of concurrent callers.

    Attributes:
        callers: Concurrent callers; each sends its next photo when the last one is answered.
        rate: Photos per second.
        p50: The median latency in milliseconds.
        p99: The 99th percentile of the latency in milliseconds.
    """

    callers: int
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Trial:
    """A choice of settings, and its measurements."""

    choice: Choice
    points: tuple[Point, ...]

    def best(self, budget: float) -> Point | None:
        """The highest rate whose p99 is within a budget of milliseconds."""
        return max((point for point in self.points if point.p99 <= budget), key=lambda point: point.rate, default=None)


def serve_and_measure(
    repository: Path,
    folder: Path,
    configs: Mapping[str, Any],
    choice: Choice,
    photos: Sequence[bytes],
    callers: Sequence[int],
    seconds: float,
) -> Trial:
    """Serves a private copy of a repository, and measures it.

    Args:
        repository: The model repository; it is not changed.
        folder: Where to make the copy, on the same file system: the models are linked, not copied.
        configs: The models' configurations; they are changed.
        choice: The settings.
        photos: The photos to send.
        callers: The numbers of concurrent callers to measure with.
        seconds: The length of each measurement.

    Raises:
        ServingError: Triton does not start with these settings.
        CarAnalyzerError: It does not answer.
    """
    shutil.copytree(repository, folder, copy_function=_link, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    try:
        choice.write_to(configs)
        for model, config in configs.items():
            file = folder / model / "config.pbtxt"
            file.unlink()
            file.write_text(as_text(config), encoding="utf-8")
        with Server(Settings(folder, http_port=0, grpc_port=0, metrics_port=0)) as server:
            return Trial(choice, asyncio.run(_measure(server.grpc_url, photos, callers, seconds)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(url: str, photos: Sequence[bytes], callers: Sequence[int], seconds: float) -> tuple[Point, ...]:
    async with AsyncCarAnalyzer(url) as analyzer:
        usable = [photo for photo in photos if await _is_accepted(analyzer, photo)]
        if not usable:
            raise PhotoError("none of the photos is accepted by the service")
        return tuple([await _load(analyzer, usable, count, seconds) for count in callers])


async def _is_accepted(analyzer: AsyncCarAnalyzer, photo: bytes) -> bool:
    try:
        await analyzer.analyze(photo)
    except PhotoError:
        return False
    return True


async def _load(analyzer: AsyncCarAnalyzer, photos: Sequence[bytes], callers: int, seconds: float) -> Point:
    start = time.monotonic() + WARM_UP_S
    end = start + seconds
    latencies: list[float] = []
    last = end

    async def call(number: int) -> None:
        nonlocal last
        # Even if the service is slow, at least one answer is measured.
        while (sent := time.monotonic()) < end or not latencies:
            await analyzer.analyze(photos[number % len(photos)])
            number += 1
            answered = time.monotonic()
            if start <= answered <= end or (answered > end and not latencies):
                latencies.append(1000 * (answered - sent))
                last = max(last, answered)

    await asyncio.gather(*(call(number) for number in range(callers)))
    p50, p99 = np.percentile(latencies, (50, 99))
    return Point(callers, len(latencies) / (last - start), float(p50), float(p99))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
