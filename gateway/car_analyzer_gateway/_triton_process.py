"""A Triton for `car-analyzer gateway --repository`: started before the gateway, stopped after it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path
    from types import FrameType, TracebackType

PR_SET_PDEATHSIG = 1
PORT_FLAGS = ("--http-port", "--grpc-port", "--metrics-port")
# Longer than `car-analyzer serve` takes to stop.
STOP_S = 60.0


class TritonError(Exception):
    """Triton did not start."""


class TritonProcess:
    """Runs `car-analyzer serve` as a child. A context manager: entering it waits until Triton is ready.

    If Triton stops by itself, this process gets SIGTERM. A signal while Triton starts raises KeyboardInterrupt.

    Args:
        repository: The model repository.
        ports: Values for some of `PORT_FLAGS`.
        otlp_endpoint: Where Triton sends its traces; None for no traces.
        admin_key_file: The key of its administrators; None for a random one.

    Attributes:
        url: Triton's gRPC address, after it is ready.
        failed: Whether Triton stopped by itself.

    Raises:
        TritonError: It did not start. It has printed why.
    """

    def __init__(
        self, repository: str, ports: Mapping[str, str], otlp_endpoint: str | None, admin_key_file: Path | None = None
    ) -> None:
        flags = {
            "--repository": repository,
            **ports,
            "--otlp-endpoint": otlp_endpoint,
            "--admin-key-file": admin_key_file,
        }
        self._arguments = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
        self.url = ""
        self.failed = False
        self._stopping = False

    def __enter__(self) -> TritonProcess:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "car_analyzer", "serve", "--json", *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C reaches the whole process group, but Triton must not stop before the gateway has finished.
            start_new_session=True,
            preexec_fn=_terminate_with_parent,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _wait_until_ready(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        line = self._process.stdout.readline()
        if not line:
            raise TritonError(f"Triton stopped by itself with exit code {self._process.wait()}")
        addresses = json.loads(line)
        self.url = addresses["grpc"]
        shown = ", ".join(f"{name} {addresses[name]}" for name in ("grpc", "http", "metrics"))
        print(f"Triton is ready: {shown}", file=sys.stderr)

    def _watch(self) -> None:
        code = self._process.wait()
        if not self._stopping:
            self.failed = True
            print(f"Triton stopped by itself with exit code {code}.", file=sys.stderr)
            os.kill(os.getpid(), signal.SIGTERM)

    def _stop(self) -> None:
        self._stopping = True
        # A second Ctrl-C must not leave Triton running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for a Triton that is started with the gateway."""
    parser.add_argument(
        "--repository",
        metavar="DIR",
        help="also start a Triton with this model repository; needs pip install 'car-analyzer[server]'",
    )
    for flag in PORT_FLAGS:
        parser.add_argument(flag, dest=flag, metavar="PORT", help="port of that Triton; 0 takes any free port")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _terminate_with_parent() -> None:
    """Let the kernel send SIGTERM to the child if this process is killed and cannot stop it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
