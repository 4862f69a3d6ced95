"""Keeps a Triton running: mends a model whose process died, and starts Triton again when it crashed or hangs."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING

from . import signals
from .errors import ModelControlError, ServingError, StartError
from .stubs import Stub, Stubs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .server import Server

# Before each new start in a row, in seconds. A Triton that fails after the last one is given up.
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
# A Triton that was ready for so long has not failed in a row with those before it.
STEADY_S = 30.0
POLL_S = 0.3
# How many questions in a row Triton may leave unanswered, and for how long each. Even one that refuses most of its
# requests answers this question within a second. With the new start it stays below a photo's usual deadline, 30 s.
QUESTIONS = 3
ANSWER_S = 5.0
ASK_EVERY_S = 1.0
# Between attempts to mend one model, so that a model that dies at once does not keep Triton from all else.
MEND_EVERY_S = 2.0


class Supervisor:
    """Watches one server.

    Args:
        server: A running one, best one that nobody was told of yet: who dies before the first look is not missed.
        restart: Whether to start Triton again; otherwise its end is the end.
        pauses: Before each new start in a row, in seconds.
    """

    def __init__(self, server: Server, *, restart: bool = True, pauses: Sequence[float] = PAUSES) -> None:
        self._server = server
        self._restart_wanted = restart
        self._pauses = pauses
        self._failures = 0
        self._stubs = self._look_at_stubs()

    def run(self) -> None:
        """Watches until the process is interrupted.

        Raises:
            StartError: Triton ended and is not to be started again, or failed too often in a row.
        """
        while True:
            ready_at = time.monotonic()
            reason = self._watch()
            if not self._restart_wanted:
                raise StartError(reason)
            if time.monotonic() - ready_at >= STEADY_S:
                self._failures = 0
            self._restart(reason)

    def _watch(self) -> str:
        """Watches one Triton to its end; returns what has become of it, as a sentence."""
        stubs = self._stubs
        to_mend: dict[str, float] = {}
        unanswered, ask_at = 0, time.monotonic()
        while (code := self._server.wait(POLL_S)) is None:
            for stub in stubs.look():
                _say(f"A process of the model '{stub.model}' (pid {stub.pid}) {_ending(stub)}.")
                to_mend.setdefault(stub.model, time.monotonic())
            for model in stubs.short():
                to_mend.setdefault(model, time.monotonic())
            for model in [model for model, due in to_mend.items() if due <= time.monotonic()]:
                failure = self._mend(model)
                if failure is None:
                    del to_mend[model]
                elif stubs.alive(model):
                    _say(f"{failure} Its other processes go on; trying again in {MEND_EVERY_S:g} s.")
                    to_mend[model] = time.monotonic() + MEND_EVERY_S
                elif self._server.wait(POLL_S) is None:
                    return failure
            if time.monotonic() >= ask_at:
                ask_at = time.monotonic() + ASK_EVERY_S
                unanswered = 0 if self._server.is_alive(ANSWER_S) else unanswered + 1
                if unanswered == QUESTIONS and self._server.wait(0) is None:
                    return f"Triton hangs, or was told to stop: it left {QUESTIONS} questions in a row unanswered."
        return f"Triton stopped by itself with exit code {code}{_signal_name(code)}."

    def _look_at_stubs(self) -> Stubs:
        stubs = Stubs(self._server.pid, self._server.instances)
        stubs.look()
        return stubs

    def _mend(self, model: str) -> str | None:
        """Gives a model new processes; returns why it could not, as a sentence."""
        start = time.monotonic()
        try:
            if self._server.renew(model):
                _say(f"The model '{model}' has new processes, after {time.monotonic() - start:.1f} s.")
        except ModelControlError as error:
            return str(error)
        except ServingError as error:
            return f"The model '{model}' cannot be loaded again. {error}"
        return None

    def _restart(self, reason: str) -> None:
        while True:
            if self._failures == len(self._pauses):
                raise StartError(f"{reason} Giving up after {self._failures} new starts in a row.")
            pause = self._pauses[self._failures]
            self._failures += 1
            _say(f"{reason} Starting it again{f' in {pause:g} s' if pause else ''}.")
            with signals.deferred():
                self._server.stop(at_once=True)
            time.sleep(pause)
            try:
                self._server.start()
            except ServingError as error:
                reason = str(error)
            else:
                self._stubs = self._look_at_stubs()
                _say(f"Triton is ready again and serves {', '.join(self._server.models)}.")
                return


def _ending(stub: Stub) -> str:
    code = stub.exit_code or 0
    return f"was killed by signal {-code}{_signal_name(code)}" if code < 0 else f"ended with exit code {code}"


def _signal_name(code: int) -> str:
    with contextlib.suppress(ValueError):
        return f" ({signal.Signals(-code).name})" if code < 0 else ""
    return ""


def _say(message: str) -> None:
    print(f"car-analyzer serve: {message}", file=sys.stderr, flush=True)
