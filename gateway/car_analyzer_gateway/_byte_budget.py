"""Limits how many bytes of photos are in memory. Requests over the budget queue in FIFO order."""

from __future__ import annotations

import asyncio


class ByteBudget:
    """A number of bytes that all requests share.

    Args:
        size: The total number of bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self.waiting = 0
        # asyncio's lock is fair: its holder is the head of the queue.
        self._head_of_queue = asyncio.Lock()
        self._released = asyncio.Event()

    async def reserve(self, size: int) -> Reservation:
        """Wait until so many bytes are free, and reserve them.

        Args:
            size: At most the budget's size.
        """
        self.waiting += 1
        try:
            async with self._head_of_queue:
                while self.used + size > self.size:
                    self._released.clear()
                    await self._released.wait()
                self.used += size
        finally:
            self.waiting -= 1
        return Reservation(self, size)

    def release(self, size: int) -> None:
        """Return bytes to the budget."""
        self.used -= size
        self._released.set()


class Reservation:
    """Bytes that were reserved from a budget, until they are released."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self.size = size
        self._budget = budget

    def split(self, size: int) -> Reservation:
        """Move some of the bytes, or all if there are fewer, to a new reservation."""
        part = Reservation(self._budget, min(size, self.size))
        self.size -= part.size
        return part

    def release(self) -> None:
        """Return the bytes. Further calls do nothing."""
        size, self.size = self.size, 0
        if size:
            self._budget.release(size)
