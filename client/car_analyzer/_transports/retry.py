"""The time limit of a call, and the attempts within it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    CarAnalyzerError,
    DeadlineExceededError,
    ModelNotReadyError,
    OverloadedError,
    ServerError,
    UnreachableError,
)
from ..triton_messages import Cause, has_cause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ..config import Retry

T = TypeVar("T")

# A gateway has a time limit of its own. If so much time is left, that one was shorter.
SHORTER_LIMIT_S = 1.0
# Too short to connect to a server that answers.
LAST_MOMENTS_S = 0.1
# At this moment no server can do the work.
_NO_SERVER = (UnreachableError, ModelNotReadyError)


class Deadline:
    """The moment by which a call has to be complete."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def error(self, action: str, last: CarAnalyzerError | None = None) -> DeadlineExceededError:
        """The error for a deadline that has passed."""
        because = f"; last error: {last}" if last is not None else ""
        return DeadlineExceededError(f"{action} took longer than {self.seconds:g} s{because}")


async def wait_for(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine, and cancel it when the time is over.

    Replaces `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes together with the result.

    Raises:
        asyncio.TimeoutError: The time is over.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


async def retry_call(
    attempt: Callable[[float], Awaitable[T]], deadline: Deadline, retry: Retry, answered: Callable[[], bool]
) -> T:
    """Repeat an attempt until it succeeds, fails permanently, or the time is over.

    Args:
        attempt: Makes one attempt within the seconds that it is given.
        deadline: When to stop.
        retry: How to repeat.
        answered: Whether the server has ever answered this client properly.

    Raises:
        UnreachableError: No server answered until the deadline, or for as long as `retry` allows.
        ModelNotReadyError: The model was not loaded for as long.
        DeadlineExceededError: The time is over, for any other reason.
        CarAnalyzerError: What the attempt raised, where `retry` allows no further attempt or it would not help.
    """
    failures = counted = 0
    last: CarAnalyzerError | None = None
    unanswered_since: float | None = None
    while left := deadline.left:
        try:
            return await attempt(left)
        except DeadlineExceededError as error:
            if deadline.left > SHORTER_LIMIT_S:
                raise
            raise deadline.error("the analysis", last) from error
        except CarAnalyzerError as error:
            if not _is_temporary(error):
                raise
            # An attempt in the last moments says less than the server's last answer.
            if last is None or left > LAST_MOMENTS_S:
                last = error
        no_server = isinstance(last, _NO_SERVER)
        # Of several servers behind one name, another one can take the call.
        shutting_down = isinstance(last, OverloadedError) and has_cause(str(last), Cause.SHUTTING_DOWN)
        failures += not shutting_down
        # While gRPC waits to reconnect, attempts fail at once: time limits them, and not their number.
        limited_by_time = shutting_down or (no_server and retry.reconnect_patience is not None)
        if retry.attempts == 1 or not limited_by_time:
            counted += 1
            if counted == retry.attempts:
                raise last
        pause = min(retry.delay(max(1, failures)), deadline.left)
        now = time.monotonic()
        if shutting_down or no_server:
            unanswered_since = now if unanswered_since is None else unanswered_since
            patience = unanswered_since + retry.patience(answered=answered()) - now
            if patience <= 0:
                raise last
            pause = min(pause, patience)
        else:
            unanswered_since = None
        await asyncio.sleep(pause)
    if isinstance(last, _NO_SERVER):
        raise last
    raise deadline.error("the analysis", last) from last


def _is_temporary(error: CarAnalyzerError) -> bool:
    """Whether another attempt may succeed."""
    return (
        isinstance(error, UnreachableError | OverloadedError)
        or (isinstance(error, ServerError) and has_cause(str(error), Cause.BACKEND_RESTARTING))
        or (isinstance(error, ModelNotReadyError) and has_cause(str(error), Cause.NO_VERSION_LOADED))
    )
