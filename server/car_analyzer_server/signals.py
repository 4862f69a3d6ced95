"""SIGINT, SIGTERM and SIGHUP, in commands that must clean up before they end."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def raised_as_keyboard_interrupt() -> Iterator[None]:
    """Makes the first signal raise KeyboardInterrupt, so that SIGTERM unwinds the stack like Ctrl-C; ignores others.

    This includes SIGINT: a shell starts background jobs with SIGINT ignored, and Python leaves that unchanged.
    """

    def interrupt(_signal: int, _frame: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delivers signals that arrive during the body when it is done.

    Uses handlers, not a signal mask of this thread: libraries have threads of their own, which would get the signal.
    """
    arrived: list[int] = []
    try:
        with _handled_by(lambda number, _frame: arrived.append(number)):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
