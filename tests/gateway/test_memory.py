"""Photos stay in memory, and memory is limited, however many arrive at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from car_analyzer_gateway._byte_budget import ByteBudget
from tests.conftest import until

from .conftest import Gateway, make_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import SimpleNamespace

MB = 1_000_000


@contextlib.contextmanager
def opened_files(gateway: Gateway) -> Iterator[set[str]]:
    """Sample the open files of a process every few milliseconds."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            for link in Path(f"/proc/{gateway.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    seen.add(str(link.readlink()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


async def flood(gateway: Gateway, photo: bytes, count: int) -> list[int]:
    body, headers = make_form(photo)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=gateway.url, limits=limits, timeout=600, trust_env=False) as client:
        sent = (client.post("/analyze", content=body, headers=headers) for _ in range(count))
        return [response.status_code for response in await asyncio.gather(*sent)]


async def test_200_large_uploads_at_once(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], large_photo: bytes
) -> None:
    patient = ["--timeout", "600", "--upload-timeout", "600"]
    gateway = start_gateway(server.grpc_url, *patient)  # gRPC makes more copies than HTTP does
    assert await flood(gateway, large_photo, 200) == [200] * 200
    assert gateway.peak_rss() < 300 * MB
    assert gateway.metric("car_analyzer_held_bytes") == 0
    # Memory is returned after a burst.
    until(lambda: gateway.rss() < 200 * MB)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_large_uploads_for_a_triton_that_is_down(
    protocol: str, start_gateway: Callable[..., Gateway], large_photo: bytes
) -> None:
    gateway = start_gateway(f"{protocol}://127.0.0.1:9", "--timeout", "600", "--upload-timeout", "600")
    statuses = await flood(gateway, large_photo, 80)
    assert set(statuses) == {503}
    assert gateway.peak_rss() < 300 * MB


def test_a_photo_is_never_on_disk(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], large_photo: bytes, tmp_path: Path
) -> None:
    nowhere = tmp_path / "read-only"
    nowhere.mkdir(mode=0o500)
    gateway = start_gateway(server.grpc_url, TMPDIR=str(nowhere / "missing"))
    with opened_files(gateway) as seen:
        for _ in range(3):
            assert len(gateway.analyze(large_photo, large_photo).json()) == 2
    opened = {name for name in seen if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))}
    # Modules that are imported late, and the log, are not photos.
    assert {name for name in opened if not name.endswith((".py", ".pyc", ".so")) and "gateway-" not in name} == set()
    assert not list(nowhere.iterdir())


async def test_the_budget_is_a_fifo_queue() -> None:
    budget = ByteBudget(10)
    first = await budget.reserve(6)
    turns: list[str] = []

    async def wait(name: str, size: int) -> None:
        reservation = await budget.reserve(size)
        turns.append(name)
        reservation.release()

    tasks = [asyncio.create_task(wait(name, size)) for name, size in (("large", 8), ("small", 1), ("gone", 2))]
    await asyncio.sleep(0)
    # The small one would fit, but it came later: otherwise large ones might wait for ever.
    assert turns == []
    tasks[2].cancel()
    part = first.split(4)
    first.release()
    await asyncio.sleep(0)
    assert turns == []
    part.release()
    part.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert turns == ["large", "small"]
    assert budget.used == 0


async def test_cancelled_requests_do_not_use_up_the_budget() -> None:
    budget = ByteBudget(10)
    for delay in (0.0, 0.001, 0.002):
        reservation = await budget.reserve(10)
        waiting = [asyncio.create_task(budget.reserve(5)) for _ in range(4)]
        await asyncio.sleep(0)
        reservation.release()
        for task in waiting:
            task.cancel()
        await asyncio.sleep(delay)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for result in results:
            if not isinstance(result, BaseException):
                result.release()
        assert budget.used == 0


async def test_the_next_in_line_is_served_when_the_first_gives_up() -> None:
    budget = ByteBudget(10)
    reservation = await budget.reserve(6)
    large = asyncio.create_task(budget.reserve(10))
    small = asyncio.create_task(budget.reserve(4))
    await asyncio.sleep(0)
    large.cancel()
    assert (await small).size == 4
    reservation.release()
    assert budget.used == 4
