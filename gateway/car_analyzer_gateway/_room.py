"""How many bytes of photos are held at once. Who finds no room waits, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class Room:
    """A number of bytes that requests share.

    Args:
        size: How many there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def take(self, size: int) -> Share:
        """Wait until so many bytes are free, and take them.

        Args:
            size: At most the room's own size.
        """
        if self._waiting or self.used + size > self.size:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.give(size)  # the turn came at the moment the caller gave up
                else:
                    with contextlib.suppress(ValueError):  # it was passed over already
                        self._waiting.remove((size, turn))
                    self._admit()
                raise
        else:
            self.used += size
        return Share(self, size)

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.used -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if self.used + size > self.size:
                return
            self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)


class Share:
    """Bytes that were taken from a room. Nobody else has them until they are released."""

    def __init__(self, room: Room, size: int) -> None:
        self.size = size
        self._room = room

    def split(self, size: int) -> Share:
        """Part with some of the bytes, or all if there are no more."""
        part = Share(self._room, min(size, self.size))
        self.size -= part.size
        return part

    def release(self) -> None:
        """Give the bytes back. Doing so again does nothing."""
        size, self.size = self.size, 0
        if size:
            self._room.give(size)
