"""A `car-analyzer serve` of one's own, as a process that faults can be done to."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from . import processes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

ROOT = Path(__file__).parents[1]
ANY_PORTS = {"http": 0, "grpc": 0, "metrics": 0}
_PR_SET_PDEATHSIG = 1
_OWN_LINE = "car-analyzer serve: "


class Service:
    """A context manager: ready when it is entered, gone when it is left.

    Args:
        repository: The model repository.
        arguments: More arguments for `serve`.
        ports: By protocol; 0 takes any free one.
        prefix: A command that runs `serve`, such as `unshare`.
        variables: More variables of the environment.

    Attributes:
        addresses: What `serve --json` says.
        lines: What it wrote to stderr.
    """

    def __init__(
        self,
        repository: Path,
        *arguments: str,
        ports: Mapping[str, int] = ANY_PORTS,
        prefix: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [*prefix, sys.executable, "-m", "car_analyzer", "serve", "--json", *arguments]
        self._command += ["--repository", str(repository)]
        self._command += [f"--{name}-port={port}" for name, port in ports.items()]
        self._environment = {**os.environ, **(variables or {})}
        self.addresses: dict[str, Any] = {}
        self.lines: list[str] = []

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until it is ready.

        Raises:
            RuntimeError: It did not start; the message is what it said.
        """
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self._environment,
            preexec_fn=die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError("".join(self.lines))
        self.addresses = json.loads(line)

    def stop(self) -> int:
        """Tells it to stop and waits; returns its exit code."""
        self._process.terminate()
        code = self._process.wait(90)
        self._reader.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    @property
    def pid(self) -> int:
        """Of `serve` itself."""
        return self._process.pid

    @property
    def ports(self) -> dict[str, int]:
        """The ports that were taken, by protocol."""
        return {name: int(self.addresses[name].split(":")[2].partition("/")[0]) for name in ANY_PORTS}

    def triton(self) -> int:
        """The process id of Triton as it runs now.

        Raises:
            TimeoutError: None came within half a minute.
        """
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for child in psutil.Process(self.pid).children(recursive=True):
                if child.name() == "tritonserver" and child.status() != psutil.STATUS_ZOMBIE:
                    return int(child.pid)
            time.sleep(0.05)
        raise TimeoutError("serve has no Triton")

    def stub(self, model: str) -> int:
        """A process that runs a model."""
        stubs = processes.stubs(self.triton())
        return next(int(stub.pid) for stub in stubs if any(f"/{model}/" in word for word in stub.cmdline()))

    def said(self, words: str = "") -> list[str]:
        """The lines of `serve` itself, not Triton's, that have these words."""
        return [line.strip() for line in list(self.lines) if line.startswith(_OWN_LINE) and words in line]

    def wait_for(self, words: str, count: int = 1, timeout: float = 60.0) -> None:
        """Waits until it said something.

        Raises:
            TimeoutError: It did not.
        """
        deadline = time.monotonic() + timeout
        while len(self.said(words)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"serve did not say {words!r}, but: {self.said()}")
            time.sleep(0.05)

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it was opened as a pipe
        with self._process.stderr as lines:
            self.lines.extend(lines)


def die_with_parent() -> None:
    """Whatever becomes of the script, no service outlives it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
