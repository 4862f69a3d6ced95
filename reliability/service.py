"""`car-analyzer serve` and `car-analyzer gateway` as child processes, into which faults can be injected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
from prometheus_client.parser import text_string_to_metric_families

from car_analyzer_server.settings import Settings, with_ports

from .processes import die_with_parent, stubs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

ANY_PORTS = {"http": 0, "grpc": 0, "metrics": 0}
_OWN_LINE = "car-analyzer serve: "

C = TypeVar("C", bound="Command")


class Command:
    """A command of car-analyzer that runs until it is stopped. A context manager: ready when it is entered.

    Args:
        words: The command and its arguments; `--json` is added.
        prefix: A command that runs it, such as `unshare`.
        environment: All variables of the environment; the caller's by default.

    Attributes:
        addresses: What it prints when it is ready.
        lines: What it has written to stderr.
    """

    def __init__(self, *words: str, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self._command = [*prefix, sys.executable, "-m", "car_analyzer", *words, "--json"]
        self._environment = environment
        self.addresses: dict[str, Any] = {}
        self.lines: list[str] = []

    def __enter__(self: C) -> C:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until it is ready.

        Raises:
            RuntimeError: It did not start; the message is what it wrote.
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
        """Sends SIGTERM and waits; returns the exit code."""
        self._process.terminate()
        code = self._process.wait(90)
        self._reader.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it was opened as a pipe
        with self._process.stderr as lines:
            self.lines.extend(lines)


def fixed_ports() -> dict[str, int]:
    """Free ports for a service that is stopped and started again on them.

    An outgoing connection cannot take them meanwhile: not even that of a client to this very port, which the kernel
    would connect to itself.
    """
    chosen = with_ports(Settings(http_port=0, grpc_port=0, metrics_port=0))
    return {"http": chosen.http_port, "grpc": chosen.grpc_port, "metrics": chosen.metrics_port}


class Gateway(Command):
    """A gateway on a free port, without the caller's settings.

    Args:
        triton: The URL of the Triton behind it.
        arguments: More arguments.
        prefix: A command that runs it, such as `unshare`.
    """

    def __init__(self, triton: str, *arguments: str, prefix: Sequence[str] = ()) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CAR_ANALYZER_")}
        words = ("gateway", "--port=0", "--log-level=error", f"--url={triton}", *arguments)
        super().__init__(*words, prefix=prefix, environment=clean)

    @property
    def url(self) -> str:
        """Its own URL."""
        return str(self.addresses["gateway"])


class Service(Command):
    """`serve` with its Triton.

    Args:
        repository: The model repository.
        arguments: More arguments for `serve`.
        ports: By protocol; 0 takes any free one.
        prefix: A command that runs `serve`, such as `unshare`.
        variables: More variables of the environment.
    """

    def __init__(
        self,
        repository: Path,
        *arguments: str,
        ports: Mapping[str, int] = ANY_PORTS,
        prefix: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        words = [f"--repository={repository}", *(f"--{name}-port={port}" for name, port in ports.items())]
        environment = {**os.environ, **(variables or {})}
        super().__init__("serve", *arguments, *words, prefix=prefix, environment=environment)

    @property
    def ports(self) -> dict[str, int]:
        """The ports in use, by protocol."""
        return {name: int(self.addresses[name].split(":")[2].partition("/")[0]) for name in ANY_PORTS}

    def triton(self) -> int:
        """The process id of the running Triton.

        Raises:
            TimeoutError: There was none for half a minute.
        """
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for child in psutil.Process(self.pid).children(recursive=True):
                if child.name() == "tritonserver" and child.status() != psutil.STATUS_ZOMBIE:
                    return int(child.pid)
            time.sleep(0.05)
        raise TimeoutError("serve has no Triton")

    def stub(self, model: str) -> int:
        """The id of a process that runs a model."""
        return int(stubs(self.triton(), model)[0].pid)

    def said(self, words: str = "") -> list[str]:
        """The log lines of `serve` itself, not Triton's, that contain these words."""
        return [line.strip() for line in list(self.lines) if line.startswith(_OWN_LINE) and words in line]

    def wait_for(self, words: str, count: int = 1, timeout: float = 60.0) -> None:
        """Waits until it has logged something so many times.

        Raises:
            TimeoutError: It has not.
        """
        deadline = time.monotonic() + timeout
        while len(self.said(words)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"serve did not log {words!r}, but: {self.said()}")
            time.sleep(0.05)

    def wait_for_another(self, words: str, cause: Callable[[], object]) -> None:
        """Runs `cause` and waits until these words are logged once more than before."""
        before = len(self.said(words))
        cause()
        self.wait_for(words, before + 1)


def read_metric(url: str, name: str, timeout: float = 30.0) -> list[tuple[dict[str, str], float]]:
    """The samples of one of Triton's metrics: labels and value.

    Raises:
        OSError: The metrics endpoint does not answer.
    """
    with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - our own service
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return [(one.labels, one.value) for family in families for one in family.samples if one.name == name]
