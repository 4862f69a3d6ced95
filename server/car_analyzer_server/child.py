"""Runs Triton as a child process that ends with this process, and whose stubs end with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int) -> None:
    """Has the kernel send this process a signal when its parent ends, however that happens.

    For the kernel, the parent is the thread that started this process.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def start_child(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Starts Triton in a separate session, with stdout and stderr in one pipe.

    Raises:
        OSError: It cannot be started.
    """
    started: Future[subprocess.Popen[str]] = Future()
    threading.Thread(target=_start_and_watch, args=(command, environment, started), daemon=True).start()
    try:
        return started.result()
    except KeyboardInterrupt:
        # The caller gets no handle, so it must be ended here.
        process = started.result()
        process.kill()
        process.wait()
        raise


def _start_and_watch(
    command: Sequence[str], environment: Mapping[str, str], started: Future[subprocess.Popen[str]]
) -> None:
    """Starts Triton, and kills the stubs of the Python backend when it ends.

    The stubs inherit its sockets. While one of them runs, clients do not notice that Triton has ended.

    This thread runs as long as Triton: for the kernel it is the parent, and its end would be the parent's end (see
    `end_with_parent`).
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - this is what the module is for
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C in a terminal goes to the whole process group, but only `Server.stop` may signal Triton.
            start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),
        )
    except BaseException as error:  # noqa: BLE001 - passed on to the caller of `start_child`
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
