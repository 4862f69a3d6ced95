"""Several servers behind one DNS name: calls go to all its addresses in turn.

gRPC spreads calls over the addresses that it found when it connected, and does not look for new ones as long as those
answer. HTTP keeps its connections. So the name is resolved repeatedly here, for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from typing import TYPE_CHECKING

from .base import CONNECT_S
from .retry import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Endpoint

LOOKUP_INTERVAL_S = 5.0
RECONNECT_INTERVAL_S = 1.0


class Lookup:
    """Resolves a host name repeatedly while calls are made, at most every `LOOKUP_INTERVAL_S`.

    Args:
        endpoint: Its host is resolved, unless it is an address.
        on_change: Called with the addresses whenever they have changed.
    """

    def __init__(self, endpoint: Endpoint, on_change: Callable[[frozenset[str]], None]) -> None:
        self._host, self._port = endpoint.host, endpoint.port
        self._on_change = on_change
        self._known: frozenset[str] = frozenset()
        self._due = 0.0 if _is_name(self._host) else float("inf")
        self._task: asyncio.Task[None] | None = None

    def refresh(self) -> None:
        """Start a lookup if the last one is old. Its result arrives later."""
        now = time.monotonic()
        if now >= self._due and (self._task is None or self._task.done()):
            self._due = now + LOOKUP_INTERVAL_S
            self._task = asyncio.create_task(self._resolve())

    def close(self) -> None:
        """Stop the lookups."""
        self._due = float("inf")
        if self._task is not None:
            self._task.cancel()

    async def _resolve(self) -> None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # keep the known addresses; a call to one that is gone fails by itself
        addresses = frozenset(str(address[0]) for *_, address in found)
        if addresses != self._known:
            self._known = addresses
            self._on_change(addresses)


class RoundRobin:
    """Chooses an address for each call, among those that accept connections.

    Args:
        endpoint: Its host is resolved.
        on_removed: Called with each address that the name no longer has.
    """

    def __init__(self, endpoint: Endpoint, on_removed: Callable[[str], None]) -> None:
        self._port = endpoint.port
        self._lookup = Lookup(endpoint, self._update)
        self._on_removed = on_removed
        self._open: list[str] = []
        self._probes: dict[str, asyncio.Task[None]] = {}

    def next(self) -> str | None:
        """The next address; None without a choice: the name has one address, or none accepts connections."""
        self._lookup.refresh()
        if not self._open:
            return None
        self._open.append(self._open.pop(0))
        return self._open[-1]

    def mark_down(self, address: str) -> None:
        """Skip an address that failed, until it accepts connections again."""
        if address in self._open:
            self._open.remove(address)
            self._probe(address)

    def close(self) -> None:
        """Stop the lookups and connection attempts."""
        self._lookup.close()
        for task in self._probes.values():
            task.cancel()

    def _update(self, addresses: frozenset[str]) -> None:
        wanted = addresses if len(addresses) > 1 else frozenset()
        for address in {*self._open, *self._probes} - wanted:
            if address in self._open:
                self._open.remove(address)
            else:
                self._probes.pop(address).cancel()
            self._on_removed(address)
        for address in wanted.difference(self._open, self._probes):
            self._probe(address)

    def _probe(self, address: str) -> None:
        self._probes[address] = asyncio.create_task(self._wait_until_open(address))

    async def _wait_until_open(self, address: str) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                _, writer = await wait_for(CONNECT_S, asyncio.open_connection(address, self._port))
                writer.transport.abort()
                break
            await asyncio.sleep(RECONNECT_INTERVAL_S)
        del self._probes[address]
        self._open.append(address)


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False
