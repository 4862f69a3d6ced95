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
        with self._lock:
            self._check(time.monotonic(), time.time())
        return self._stalled >= moment

    def unsafe_since(self, moment: float) -> bool:
        """Whether it stalled, or the clock was set forwards, since a moment of the monotonic clock."""
        return self.stalled_since(moment) or self._jumped >= moment

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK_S)
            with self._lock:
                now = self._now()
                self._check(*now[:2])
                self._last = now

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), time.time(), time.process_time()

    def _check(self, now: float, clock: float) -> None:
        """Compares the clocks with those of the last tick."""
        passed, by_clock = now - self._last[0], clock - self._last[1]
        # Time on a core is no stall, even if the thread above had to wait for it. This clock is slow to read.
        if passed > _STALL_S and passed - (time.process_time() - self._last[2]) > _STALL_S:
            self._stalled = now
        if by_clock - passed > _STALL_S:
            self._jumped = now


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
