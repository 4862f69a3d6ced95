"""Many photos: in order, lazily, concurrently, and from many threads."""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from car_analyzer import Analysis, AsyncCarAnalyzer, CarAnalyzer, ConfigurationError, Failure, OverloadedError, Retry
from tests.conftest import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from types import SimpleNamespace

    from reliability.proxy import Proxy

    Reference = Callable[[bytes], dict[str, list[float]]]

THREADS, PHOTOS = 32, 2000
REFUSALS = ("Exceeds maximum queue size", "Request timeout expired")


def logits(result: Analysis | Failure) -> dict[str, list[float]]:
    assert result.ok
    return {name: pytest.approx(list(head.logits), abs=2e-3) for name, head in result.heads.items()}


def test_threads_share_one_client(url: str, sample_photos: list[Path], reference: Reference) -> None:
    photos = [path.read_bytes() for path in sample_photos]
    expected = [reference(photo) for photo in photos]
    together = threading.Barrier(THREADS)

    def work(first: int) -> int:
        together.wait(PATIENCE_S)
        wrong = 0
        for number in range(first, PHOTOS, THREADS):
            photo = number % len(photos)
            wrong += expected[photo] != logits(analyzer.analyze(photos[photo]))
        return wrong

    with CarAnalyzer(url) as analyzer, ThreadPoolExecutor(THREADS) as threads:
        assert sum(threads.map(work, range(THREADS))) == 0


def test_results_come_in_order(url: str, sample_photos: list[Path], reference: Reference) -> None:
    paths = sample_photos * 3
    with CarAnalyzer(url) as analyzer:
        for concurrency in (1, 5, 1000):
            results = list(analyzer.analyze_many(iter(paths), concurrency=concurrency))
            assert len(results) == len(paths)
            for path, result in zip(sample_photos, results, strict=False):
                assert reference(path.read_bytes()) == logits(result)
        assert list(analyzer.analyze_many([])) == []


def test_bad_photos_do_not_stop_the_others(url: str, sample_photos: list[Path], tmp_path: Path) -> None:
    good = sample_photos[0]
    photos = [good, b"no photo", good, tmp_path / "absent.jpg", 7, b"", good]
    with CarAnalyzer(url) as analyzer:
        results = list(analyzer.analyze_many(photos))  # type: ignore[arg-type]
    assert [result.ok for result in results] == [True, False, True, False, False, False, True]
    for result in results:
        if not result.ok:
            assert result.error.__traceback__ is None  # or it would keep the photo alive
            assert result.to_dict() == {"error": str(result.error), "code": result.error.code}


def test_photos_are_taken_as_results_are(url: str, sample_photos: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        for taken in itertools.count(1):  # noqa: B007
            yield sample_photos[0]

    with CarAnalyzer(url) as analyzer:
        results = analyzer.analyze_many(endless(), concurrency=4)
        assert taken == 0
        for count in range(1, 9):
            assert next(results).ok
            assert taken == count + 3
        results.close()
        assert analyzer.analyze(sample_photos[0]).ok


def test_leaving_early_drops_what_is_under_way(proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    proxy.listen()
    with CarAnalyzer(proxy_url) as analyzer:
        for result in analyzer.analyze_many(itertools.repeat(sample_photos[0]), concurrency=4):
            assert result.ok
            proxy.freeze()
            break  # what is under way will never be answered: closing must not wait for it


async def test_async_many(url: str, sample_photos: list[Path], reference: Reference) -> None:
    taken = 0

    async def arriving() -> AsyncIterator[Path]:
        nonlocal taken
        for path in sample_photos:
            await asyncio.sleep(0)
            taken += 1
            yield path

    async with AsyncCarAnalyzer(url) as analyzer:
        count = 0
        async for result in analyzer.analyze_many(arriving(), concurrency=2):
            assert reference(sample_photos[count].read_bytes()) == logits(result)
            count += 1
            assert taken <= count + 1
        assert count == len(sample_photos)
        assert [result.ok async for result in analyzer.analyze_many([sample_photos[0], b"no photo"])] == [True, False]


async def test_async_many_leaves_no_task(url: str, sample_photos: list[Path]) -> None:
    async with AsyncCarAnalyzer(url) as analyzer:
        before = asyncio.all_tasks()
        results = analyzer.analyze_many(itertools.repeat(sample_photos[0]), concurrency=8)
        assert (await anext(results)).ok
        await results.aclose()
        assert asyncio.all_tasks() == before

        async def consume() -> None:
            async for _ in analyzer.analyze_many(itertools.repeat(sample_photos[0])):
                pass

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(consume(), 0.5)
        assert (await analyzer.analyze(sample_photos[0])).ok


def test_an_error_in_the_callers_iterable_is_the_callers(url: str, sample_photos: list[Path]) -> None:
    def breaking() -> Iterator[Path]:
        yield sample_photos[0]
        raise KeyError("mine")

    with CarAnalyzer(url) as analyzer, pytest.raises(KeyError, match="mine"):
        list(analyzer.analyze_many(breaking()))


def test_wrong_use_shows_at_the_call(url: str) -> None:
    with CarAnalyzer(url) as analyzer:
        with pytest.raises(ConfigurationError, match="at least 1"):
            analyzer.analyze_many([], concurrency=0)
        with pytest.raises(ConfigurationError, match="seconds"):
            analyzer.analyze_many([], timeout=-1)
        for photo in ("car.jpg", b"bytes"):
            with pytest.raises(TypeError, match="one photo"):
                analyzer.analyze_many(photo)  # type: ignore[arg-type]


async def test_a_crowd_is_served_by_coming_again(server: SimpleNamespace, sample_photos: list[Path]) -> None:
    # Over gRPC only: when its queue overflows, the Triton in the PyPI wheel leaves some HTTP requests without
    # any answer.
    photos = [path.read_bytes() for path in sample_photos]
    crowd = [photos[number % len(photos)] for number in range(600)]
    async with AsyncCarAnalyzer(server.grpc_url, timeout=600, retry=Retry(attempts=1)) as hasty:
        results = await asyncio.gather(*(hasty.analyze(photo) for photo in crowd), return_exceptions=True)
        for result in results:
            assert isinstance(result, Analysis | OverloadedError), result
            # On a slow machine it may have waited for too long in its queue.
            assert isinstance(result, Analysis) or str(result) in REFUSALS, result
    async with AsyncCarAnalyzer(server.grpc_url, timeout=600) as patient:
        assert all(result.ok for result in await asyncio.gather(*(patient.analyze(photo) for photo in crowd)))
