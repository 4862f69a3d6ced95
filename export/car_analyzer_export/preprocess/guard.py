"""Ends this process if Triton may have declared it dead during a request.

Triton's Python backend expects a heartbeat from each of its processes within a second of the system clock. If a process
was stalled for longer (stopped, starved, suspended with the machine), or if the clock was set forwards, Triton fails
the requests of the process and reuses their shared memory for other requests. But it does not end the process, which
would then read and answer another photo's pixels. `car-analyzer serve` replaces a process that has ended, and the
client retries its requests; `serve` sets an environment variable for this. Without it, the process continues.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time

# Heartbeats come every 0.3 s, so a stall of this length can use up the second.
_STALL_S = 0.6
_TICK_S = 0.1
# A request that arrives during a stall reaches this process right after it.
_SUSPECT_S = 1.0
_SUPERVISED = os.environ.get("CAR_ANALYZER_SUPERVISED") == "1"


class _Watchdog:
    """Detects stalls of this process, and jumps of the system clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = self._now()
        self._stalled = self._jumped = float("-inf")
        threading.Thread(target=self._tick, daemon=True).start()

    def stalled_since(self, moment: float) -> bool:
        """Whether this process stalled since a moment of the monotonic clock."""
        self._check()
        return self._stalled >= moment

    def unsafe_since(self, moment: float) -> bool:
        """Whether it stalled, or the clock was set forwards, since a moment of the monotonic clock."""
        return self.stalled_since(moment) or self._jumped >= moment

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), time.time()

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK_S)
            self._check()

    def _check(self) -> None:
        with self._lock:
            now = self._now()
            passed, cpu, by_clock = (new - old for new, old in zip(now, self._last, strict=True))
            self._last = now
            # CPU time of this process is no stall, even if the thread above had to wait for it.
            if passed - cpu > _STALL_S:
                self._stalled = now[0]
            if by_clock - passed > _STALL_S:
                self._jumped = now[0]


@functools.cache
def _watchdog() -> _Watchdog:
    """Created with the first request: loading libraries from disk before that looks like a stall."""
    return _Watchdog()


def begin() -> float:
    """Call this before reading a request; returns the start time for `end`."""
    now = time.monotonic()
    if _SUPERVISED and _watchdog().stalled_since(now - _SUSPECT_S):
        _die()
    return now


def end(start: float) -> None:
    """Call this before answering a request. Does not return if the answer may be for another request."""
    if _SUPERVISED and _watchdog().unsafe_since(start):
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
