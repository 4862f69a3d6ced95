"""The servers behind one name: a name with several addresses stands for several, and calls go to all of them in turn.

gRPC spreads calls over the addresses it found when it connected, and does not learn of new ones as long as those
answer. HTTP stays on the connections it has. So the name is looked up again and again here, for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from typing import TYPE_CHECKING

from .base import CONNECT_S
from .retry import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Endpoint

LOOK_EVERY_S = 5.0
TRY_EVERY_S = 1.0


class Lookup:
    """Looks a host's name up while calls are made, never more often than every `LOOK_EVERY_S`.

    Args:
        endpoint: Whose host is looked up; one that is an address already is not.
        changed: Called with the addresses when they are others than before.
    """

    def __init__(self, endpoint: Endpoint, changed: Callable[[frozenset[str]], None]) -> None:
        self._host, self._port = endpoint.host, endpoint.port
        self._changed = changed
        self._known: frozenset[str] = frozenset()
        self._due = 0.0 if _is_name(self._host) else float("inf")
        self._task: asyncio.Task[None] | None = None

    def keep_fresh(self) -> None:
        """Start a lookup if the last one is old. Its result comes later."""
        now = time.monotonic()
        if now >= self._due and (self._task is None or self._task.done()):
            self._due = now + LOOK_EVERY_S
            self._task = asyncio.create_task(self._look())

    def close(self) -> None:
        """Stop looking."""
        self._due = float("inf")
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # what was found before is still the best guess; a call that fails for it says so itself
        addresses = frozenset(str(address[0]) for *_, address in found)
        if addresses != self._known:
            self._known = addresses
            self._changed(addresses)


class Rotation:
    """Chooses an address for each call, of those that take connections.

    Args:
        endpoint: Whose host is looked up.
        left: Called with each address that the name does not have any more.
    """

    def __init__(self, endpoint: Endpoint, left: Callable[[str], None]) -> None:
        self._port = endpoint.port
        self._lookup = Lookup(endpoint, self._change)
        self._left = left
        self._open: list[str] = []
        self._tries: dict[str, asyncio.Task[None]] = {}

    def next(self) -> str | None:
        """The address whose turn it is; None where there is no choice: one address, or none known to be open."""
        self._lookup.keep_fresh()
        if not self._open:
            return None
        self._open.append(self._open.pop(0))
        return self._open[-1]

    def pass_over(self, address: str) -> None:
        """Leave out an address that failed, until it takes connections again."""
        if address in self._open:
            self._open.remove(address)
            self._try(address)

    def close(self) -> None:
        """Stop looking and trying."""
        self._lookup.close()
        for task in self._tries.values():
            task.cancel()

    def _change(self, addresses: frozenset[str]) -> None:
        wanted = addresses if len(addresses) > 1 else frozenset()
        for address in {*self._open, *self._tries} - wanted:
            if address in self._open:
                self._open.remove(address)
            else:
                self._tries.pop(address).cancel()
            self._left(address)
        for address in wanted.difference(self._open, self._tries):
            self._try(address)

    def _try(self, address: str) -> None:
        self._tries[address] = asyncio.create_task(self._connect(address))

    async def _connect(self, address: str) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                _, writer = await within(CONNECT_S, asyncio.open_connection(address, self._port))
                writer.transport.abort()
                break
            await asyncio.sleep(TRY_EVERY_S)
        del self._tries[address]
        self._open.append(address)


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False
