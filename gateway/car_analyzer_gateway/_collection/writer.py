"""A thread that does one job after another, and a queue of jobs that is bounded."""

from __future__ import annotations

import collections
import threading
import time
from typing import TYPE_CHECKING

from .._logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_JOBS = 1000
MAX_BYTES = 64_000_000
# How often it looks whether there is something to do besides jobs.
IDLE_S = 60.0


class Writer:
    """Runs jobs in a thread of its own. It is a daemon: if the storage hangs, the process can end all the same.

    Args:
        start: What it does first.
        idle: What it does when there was no job for a while.
        max_jobs: How many jobs may wait.
        max_bytes: How many bytes of photos the jobs may hold, with the one that runs.
    """

    def __init__(
        self,
        start: Callable[[], None],
        idle: Callable[[], None],
        max_jobs: int = MAX_JOBS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._jobs: collections.deque[tuple[Callable[[], None], int]] = collections.deque()
        self._changed = threading.Condition()
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._bytes = 0
        self._closing = False
        self._busy_since: float | None = None
        self._start = start
        self._idle = idle
        self._thread = threading.Thread(target=self._run, name="collection", daemon=True)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, job: Callable[[], None], size: int = 0) -> bool:
        """Add a job, without waiting.

        Args:
            job: What to run.
            size: The bytes that it holds.

        Returns:
            False if the queue is full, or the writer closes.
        """
        with self._changed:
            if (
                self._closing
                or len(self._jobs) >= self._max_jobs
                or (self._bytes and self._bytes + size > self._max_bytes)
            ):
                return False
            self._bytes += size
            self._jobs.append((job, size))
            self._changed.notify()
            return True

    @property
    def stuck_s(self) -> float:
        """For how many seconds it has been at the same job; 0 if it waits for one."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self, timeout: float) -> int:
        """Do the jobs that wait, as far as they are done within a timeout in seconds; how many were not begun."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        with self._changed:
            left = len(self._jobs)
            self._jobs.clear()
        return left

    def _run(self) -> None:
        self._do(self._start)
        while (job := self._next()) is not None:
            self._do(job[0])
            with self._changed:
                self._bytes -= job[1]

    def _next(self) -> tuple[Callable[[], None], int] | None:
        """The next job; None at the end."""
        idle_at = time.monotonic() + IDLE_S
        with self._changed:
            while not self._jobs:
                if self._closing:
                    return None
                if not self._changed.wait(max(0.0, idle_at - time.monotonic())):
                    return self._idle, 0
            return self._jobs.popleft()

    def _do(self, job: Callable[[], None]) -> None:
        self._busy_since = time.monotonic()
        try:
            job()
        except Exception:  # noqa: BLE001 - the jobs handle the errors of the storage
            logger.exception("This is a bug in the gateway's collection.")
        finally:
            self._busy_since = None
