"""Signals that would end the process, held back for as long as something must not be cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Lets Ctrl-C and its kin wait until the body is done.

    By handlers, not by a mask of this thread: libraries have threads of their own, which would take the signal.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal raises anything
        yield
        return
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: arrived.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for late in arrived:
            signal.raise_signal(late)
