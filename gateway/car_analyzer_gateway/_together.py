"""A Triton and its gateway as one command: started together, stopped together."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

PR_SET_PDEATHSIG = 1
POLL_S = 0.2
TRITON_PORTS = ("--http-port", "--grpc-port", "--metrics-port")
# Longer than either takes by itself when it is told to stop.
STOP_S = 60.0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that are not settings of the gateway's."""
    parser.add_argument(
        "--repository", metavar="DIR", help="start a Triton on this model repository as well, and use it as --url"
    )
    for flag in TRITON_PORTS:
        parser.add_argument(flag, dest=flag, metavar="PORT", help="of that Triton; 0 takes any free one")
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object when ready")


def serve_together(repository: str, argv: list[str], otlp_endpoint: str | None) -> int:
    """Run `car-analyzer serve` and a gateway for it until told to stop, or until one of them stops.

    Args:
        repository: The model repository.
        argv: The gateway's arguments, `--repository` among them.
        otlp_endpoint: Where both send traces.

    Returns:
        0 when it was told to stop, 1 when one of them stopped by itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    children: dict[str, subprocess.Popen[str]] = {}
    try:
        traces = [] if otlp_endpoint is None else ["--otlp-endpoint", otlp_endpoint]
        ports, argv = _split(argv)
        serve = ["serve", "--json", "--repository", repository, *ports, *traces]
        triton = children["Triton"] = _start("car_analyzer", *serve, pipe=True)
        assert triton.stdout is not None  # noqa: S101 - it was opened as a pipe
        line = triton.stdout.readline()
        if line:
            addresses = json.loads(line)
            shown = ", ".join(f"{name} {addresses[name]}" for name in ("grpc", "http", "metrics"))
            print(f"Triton is ready: {shown}", file=sys.stderr)
            children["gateway"] = _start("car_analyzer_gateway", *argv, "--url", addresses["grpc"])
        return _wait(children)
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(children)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _start(*command: str, pipe: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own commands
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipe else None,
        text=True,
        # Ctrl-C reaches the whole group at once, but the gateway has to finish before its Triton goes.
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def _wait(children: dict[str, subprocess.Popen[str]]) -> int:
    while True:
        for name, child in children.items():
            if child.poll() is not None:
                print(f"The {name} stopped by itself with exit code {child.returncode}.", file=sys.stderr)
                return 1
        time.sleep(POLL_S)


def _stop(children: dict[str, subprocess.Popen[str]]) -> None:
    # A second Ctrl-C must not leave anything behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for child in reversed(children.values()):
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The flags that are Triton's, and those that are the gateway's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--repository", "--url", *TRITON_PORTS):
        parser.add_argument(flag, dest=flag)
    given, others = parser.parse_known_args(argv)
    return [f"{flag}={port}" for flag in TRITON_PORTS if (port := vars(given)[flag]) is not None], others


def _die_with_parent() -> None:
    """Has the kernel send SIGTERM to a child if this process is killed and cannot stop it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
