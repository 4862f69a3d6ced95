"""Memory, files and shared memory of a process and its descendants."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Usage:
    """What a process and its descendants hold.

    Attributes:
        memory: In bytes; pages that several processes share are counted once (PSS).
        stubs: The part of `memory` that belongs to processes of Triton's Python backend.
        files: Open file descriptors.
        shared: Bytes of POSIX shared memory.
    """

    memory: int
    stubs: int
    files: int
    shared: int


def usage(pid: int) -> Usage:
    """Measures a process and its descendants.

    Args:
        pid: The topmost process; for `shared`, it must be `car-analyzer serve` or the process that runs a `Server`.

    Raises:
        psutil.NoSuchProcess: The topmost process is gone.
    """
    top = psutil.Process(pid)
    memory = stubs = files = 0
    for process in (top, *top.children(recursive=True)):
        # A process that ends meanwhile no longer holds anything.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            size = process.memory_full_info().pss
            files += process.num_fds()
            memory += size
            stubs += size if is_stub(process) else 0
    regions = Path("/dev/shm").glob(f"car_analyzer_{pid}_*")  # noqa: S108 - where Linux keeps it
    return Usage(memory, stubs, files, sum(region.stat().st_blocks * 512 for region in regions))


def stubs(pid: int, model: str = "") -> list[psutil.Process]:
    """The running processes of Triton's Python backend under a process, of one model or all."""
    family = psutil.Process(pid).children(recursive=True)
    running = [process for process in family if is_stub(process) and process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in running if not model or any(f"/{model}/" in word for word in process.cmdline())]


def is_stub(process: psutil.Process) -> bool:
    """Whether a process belongs to Triton's Python backend."""
    return str(process.name()).startswith("triton_python_b")


def die_with_parent() -> None:
    """For `preexec_fn`: no child outlives the script, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
