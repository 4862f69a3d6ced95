"""The address of each call. tests/reliability checks with real Tritons that no photo is lost."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer._transports import replicas
from car_analyzer.config import Endpoint
from tests.conftest import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the name `tritons.test` has."""
    addresses: list[str] = []
    original = socket.getaddrinfo

    def look(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "tritons.test":
            return original(host, *arguments, **options)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr(replicas, "LOOKUP_INTERVAL_S", 0.01)
    monkeypatch.setattr(replicas, "RECONNECT_INTERVAL_S", 0.05)
    return addresses


async def until(targets: replicas.RoundRobin, expected: set[str | None]) -> None:
    """Wait until calls go to these addresses, in turn."""
    deadline = time.monotonic() + PATIENCE_S
    turns: list[str | None] = []
    while set(turns) != expected or len(turns) != len(expected):
        assert time.monotonic() < deadline, turns
        await asyncio.sleep(0.02)
        turns = [targets.next() for _ in expected]


async def listen(address: str, port: int = 0) -> asyncio.Server:
    return await asyncio.start_server(lambda _, writer: writer.close(), address, port)


async def test_addresses_come_and_go(names: list[str]) -> None:
    first = await listen("127.0.1.1")
    port = first.sockets[0].getsockname()[1]
    second, left = await listen("127.0.1.2", port), []
    targets = replicas.RoundRobin(Endpoint("http", "tritons.test", port), left.append)
    try:
        await until(targets, {None})  # no such name
        names.append("127.0.1.1")
        await until(targets, {None})  # nothing to choose from
        names += ["127.0.1.2", "127.0.1.3"]
        await until(targets, {"127.0.1.1", "127.0.1.2"})  # nobody listens at the third
        third = await listen("127.0.1.3", port)
        await until(targets, {"127.0.1.1", "127.0.1.2", "127.0.1.3"})
        second.close()
        await second.wait_closed()
        targets.mark_down("127.0.1.2")
        await until(targets, {"127.0.1.1", "127.0.1.3"})
        second = await listen("127.0.1.2", port)
        await until(targets, {"127.0.1.1", "127.0.1.2", "127.0.1.3"})
        names.remove("127.0.1.1")
        await until(targets, {"127.0.1.2", "127.0.1.3"})
        assert left == ["127.0.1.1"]
        names.clear()  # the name server is down: what is known goes on
        await until(targets, {"127.0.1.2", "127.0.1.3"})
        third.close()
    finally:
        targets.close()
        first.close()
        second.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0"])
async def test_addresses_are_not_looked_up(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    changed: Callable[[frozenset[str]], None] = fail
    lookup = replicas.Lookup(Endpoint("grpc", host, 8001), changed)
    lookup.refresh()
    await asyncio.sleep(0.01)
    lookup.close()
