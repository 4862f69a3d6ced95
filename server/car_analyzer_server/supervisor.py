"""Keeps a Triton running: renews models whose process died, and restarts Triton if it crashed or hangs."""

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

# The back-off before each restart in a row, in seconds. After the last one, the supervisor gives up.
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
# A Triton that ran for this long resets the number of restarts in a row.
STEADY_S = 30.0
POLL_S = 0.3
# Triton hangs if this number of health checks in a row time out. Even an overloaded Triton answers them within a
# second. Including the restart, this takes less than the client's default deadline of 30 s.
HEALTH_CHECKS = 3
HEALTH_TIMEOUT_S = 5.0
HEALTH_EVERY_S = 1.0
# Between attempts to renew a model, so that a model that dies immediately does not occupy Triton.
RENEW_EVERY_S = 2.0


class Supervisor:
    """Supervises one server.

    Args:
        server: A running one. Create the supervisor before clients know the server, so that it knows all stubs.
        restart: Whether to restart Triton; otherwise `run` ends with it.
        pauses: The back-off before each restart in a row, in seconds.
    """

    def __init__(self, server: Server, *, restart: bool = True, pauses: Sequence[float] = PAUSES) -> None:
        self._server = server
        self._restart_wanted = restart
        self._pauses = pauses
        self._failures = 0
        self._stubs = self._watch_stubs()

    def run(self) -> None:
        """Supervises the server until the process is interrupted.

        Raises:
            StartError: Triton ended and must not be restarted, or failed too often in a row.
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
        """Watches one Triton until it ends or hangs; returns the reason as a sentence."""
        stubs = self._stubs
        renew_at: dict[str, float] = {}
        unanswered, check_at = 0, time.monotonic()
        while (code := self._server.wait(POLL_S)) is None:
            for stub in stubs.look():
                _say(f"A process of the model '{stub.model}' (pid {stub.pid}) {_ending(stub)}.")
                renew_at.setdefault(stub.model, time.monotonic())
            for model in stubs.short():
                renew_at.setdefault(model, time.monotonic())
            for model in [model for model, due in renew_at.items() if due <= time.monotonic()]:
                failure = self._renew(model)
                if failure is None:
                    del renew_at[model]
                elif stubs.alive(model):
                    _say(f"{failure} Its other processes continue; trying again in {RENEW_EVERY_S:g} s.")
                    renew_at[model] = time.monotonic() + RENEW_EVERY_S
                elif self._server.wait(POLL_S) is None:
                    return failure
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + HEALTH_EVERY_S
                unanswered = 0 if self._server.is_alive(HEALTH_TIMEOUT_S) else unanswered + 1
                if unanswered == HEALTH_CHECKS and self._server.wait(0) is None:
                    return f"Triton hangs, or is stopping: {HEALTH_CHECKS} health checks in a row timed out."
        return f"Triton stopped by itself with exit code {code}{_signal_name(code)}."

    def _watch_stubs(self) -> Stubs:
        stubs = Stubs(self._server.pid, self._server.instances)
        stubs.look()
        return stubs

    def _renew(self, model: str) -> str | None:
        """Gives a model new processes; returns a sentence if that fails."""
        start = time.monotonic()
        try:
            if self._server.renew(model):
                _say(f"The model '{model}' has new processes, after {time.monotonic() - start:.1f} s.")
        except ModelControlError as error:
            return str(error)
        except ServingError as error:
            return f"The model '{model}' cannot be reloaded. {error}"
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
                self._stubs = self._watch_stubs()
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
