"""One budget of time for a call, and the attempts it is spent on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CarAnalyzerError, DeadlineExceededError, ModelNotReadyError, OverloadedError, UnreachableError
from .base import is_coming, is_mending, is_stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ..config import Retry

T = TypeVar("T")

# Nobody is there to do the work, now.
_ABSENT = (UnreachableError, ModelNotReadyError)


class Deadline:
    """A moment by which a call has to be over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def error(self, doing: str, last: CarAnalyzerError | None = None) -> DeadlineExceededError:
        """The error for when it has passed."""
        because = f"; last error: {last}" if last is not None else ""
        return DeadlineExceededError(f"{doing} took longer than {self.seconds:g} s{because}")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine, and cancel it when its time is over.

    In the place of `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes with the result.

    Raises:
        asyncio.TimeoutError: Its time is over.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


async def persist(
    attempt: Callable[[float], Awaitable[T]], deadline: Deadline, retry: Retry, answered: Callable[[], bool]
) -> T:
    """Repeat an attempt until it succeeds, fails for good, or its time is over.

    Args:
        attempt: Makes one attempt in the seconds it is given.
        deadline: When to stop.
        retry: How to repeat.
        answered: Whether the server has ever answered this client as it should.

    Raises:
        UnreachableError: Nobody answered to the end, or for as long as `retry` has patience.
        ModelNotReadyError: The model was not there for as long.
        DeadlineExceededError: The time is over, for any other reason.
        CarAnalyzerError: What the attempt raised, where repeating is of no use or not wanted.
    """
    failures = counted = 0
    last: CarAnalyzerError | None = None
    silent_since: float | None = None
    while left := deadline.left:
        try:
            return await attempt(left)
        except DeadlineExceededError as error:
            raise deadline.error("the analysis", last) from error
        except (UnreachableError, OverloadedError) as error:
            last = error
        except CarAnalyzerError as error:
            if not (is_mending(error) or is_coming(error)):
                raise
            last = error
        is_absent = isinstance(last, _ABSENT)
        is_leaving = is_stopping(last)
        failures += not is_leaving
        # gRPC fails at once while it waits to reconnect: several attempts may go by within one such wait.
        has_patience = is_leaving or (is_absent and retry.reconnect_patience is not None)
        if retry.attempts == 1 or not has_patience:
            counted += 1
            if counted == retry.attempts:
                raise last
        pause = min(retry.delay(max(1, failures)), deadline.left)
        now = time.monotonic()
        if is_leaving or is_absent:
            silent_since = now if silent_since is None else silent_since
            patience = silent_since + retry.patience(answered=answered()) - now
            if patience <= 0:
                raise last
            pause = min(pause, patience)
        else:
            silent_since = None
        await asyncio.sleep(pause)
    if isinstance(last, _ABSENT):
        raise last
    raise deadline.error("the analysis", last) from last
