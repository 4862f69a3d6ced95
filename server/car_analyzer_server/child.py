"""Triton as a child of this process: it goes when this process goes, and its stubs go when it goes."""

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
    """Starts Triton in a session of its own; both of its outputs come through one pipe.

    Raises:
        OSError: It cannot be started.
    """
    started: Future[subprocess.Popen[str]] = Future()
    threading.Thread(target=_start_and_watch, args=(command, environment, started), daemon=True).start()
    try:
        return started.result()
    except KeyboardInterrupt:
        # Nobody else would know of it.
        process = started.result()
        process.kill()
        process.wait()
        raise


def _start_and_watch(
    command: Sequence[str], environment: Mapping[str, str], started: Future[subprocess.Popen[str]]
) -> None:
    """Starts Triton and kills the stubs of the Python backend as soon as it is gone.

    They have inherited its connections. While one of them lives, no caller notices that the other side is dead.

    For the kernel, a parent is the thread that started a process. This one stays as long as there is that process, so
    that its end is never taken for the end of all of us.
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
            # Ctrl-C in a terminal reaches the whole group: Triton must get its signal from `Server.stop`, once.
            start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),
        )
    except BaseException as error:  # noqa: BLE001 - it belongs to who waits for the process
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
