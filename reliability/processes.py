"""What a server holds: memory, files and shared memory of a process and everything it started."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """What a process and everything it started hold.

    Attributes:
        memory: In bytes; pages that several processes share are counted once (PSS).
        stubs: The part of `memory` that belongs to processes of Triton's Python backend.
        files: Open file descriptors.
        shared: Bytes of POSIX shared memory.
        processes: How many there are.
    """

    memory: int
    stubs: int
    files: int
    shared: int
    processes: int


def usage(pid: int) -> Usage:
    """Measures a process and everything it started.

    Args:
        pid: Of the topmost process; of `car-analyzer serve`, or who runs a `Server`, to see shared memory, too.

    Raises:
        psutil.NoSuchProcess: The topmost process is gone.
    """
    top = psutil.Process(pid)
    memory = stubs = files = processes = 0
    for process in (top, *top.children(recursive=True)):
        # One that ends meanwhile holds nothing any more.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            size = process.memory_full_info().pss
            files += process.num_fds()
            memory += size
            stubs += size if is_stub(process) else 0
            processes += 1
    regions = Path("/dev/shm").glob(f"car_analyzer_{pid}_*")  # noqa: S108 - where Linux keeps it
    return Usage(memory, stubs, files, sum(region.stat().st_blocks * 512 for region in regions), processes)


def stubs(pid: int) -> list[psutil.Process]:
    """The running processes of Triton's Python backend under a process."""
    family = psutil.Process(pid).children(recursive=True)
    return [process for process in family if is_stub(process) and process.status() != psutil.STATUS_ZOMBIE]


def is_stub(process: psutil.Process) -> bool:
    """Whether it is one of Triton's Python backend."""
    return str(process.name()).startswith("triton_python_b")
