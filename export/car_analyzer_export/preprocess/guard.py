"""Ends this process if Triton may have given up on it while it worked.

Triton's Python backend expects a sign of life from each of its processes within a second, by the system's clock. When
one was held up for longer (stopped, starved, on a machine that slept), or when that clock was set forwards, it fails
the requests that the process works on and gives their memory to other requests. But it does not end the process, which
then reads and answers what is no longer its own: another photo's pixels. A process that is gone is replaced, and what
it worked on is asked again: by `car-analyzer serve`, which says so in the environment. Where nobody would replace it,
it goes on.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time

# Signs of life come every 0.3 s, so that this much of the second can be all that was left.
_HELD_UP_S = 0.6
_TICK_S = 0.1
# A request that came while this process was held up reaches it right afterwards.
_SUSPECT_S = 1.0
_REPLACED = os.environ.get("CAR_ANALYZER_SUPERVISED") == "1"


class _Watch:
    """Notices time in which this process could do nothing, and a clock that was set forwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = self._now()
        self._held_up = self._set_forwards = float("-inf")
        threading.Thread(target=self._tick, daemon=True).start()

    def held_up_since(self, moment: float) -> bool:
        """Whether it was held up since a moment of the monotonic clock."""
        self._look()
        return self._held_up >= moment

    def doubtful_since(self, moment: float) -> bool:
        """Whether it was held up, or the clock was set forwards, since a moment of the monotonic clock."""
        return self.held_up_since(moment) or self._set_forwards >= moment

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), time.time()

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK_S)
            self._look()

    def _look(self) -> None:
        with self._lock:
            now = self._now()
            passed, worked, by_clock = (new - old for new, old in zip(now, self._last, strict=True))
            self._last = now
            # What it worked itself it was not held up, even if the thread above had to wait for that.
            if passed - worked > _HELD_UP_S:
                self._held_up = now[0]
            if by_clock - passed > _HELD_UP_S:
                self._set_forwards = now[0]


@functools.cache
def _watch() -> _Watch:
    """Made with the first request: until then, libraries are read from disk, which looks like being held up."""
    return _Watch()


def begin() -> float:
    """To be called before a request is read; returns what `end` wants to know."""
    now = time.monotonic()
    if _REPLACED and _watch().held_up_since(now - _SUSPECT_S):
        _die()
    return now


def end(begun: float) -> None:
    """To be called before a request is answered. Does not return if the answer may be another one's."""
    if _REPLACED and _watch().doubtful_since(begun):
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
