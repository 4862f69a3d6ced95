"""Cleans up after Tritons that were killed together with their supervisor."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

from . import shared_memory, stubs

_END_SECONDS = 5


def remove_stale_resources() -> None:
    """Ends orphaned processes of the Python backend, and removes shared memory that no process uses.

    Such processes can wait forever for locks in that memory. Resources of running Tritons are not touched.
    """
    ended = sum(map(_end, stubs.orphans()))
    regions = shared_memory.remove_unused()
    if ended or regions:
        found = f"{ended} processes, {regions} regions of shared memory"
        print(f"Removed what a killed Triton left: {found}.", file=sys.stderr)


def _end(pid: int) -> bool:
    with contextlib.suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            # Its shared memory is released when it has ended.
            return bool(select.select([process], [], [], _END_SECONDS)[0])
        finally:
            os.close(process)
    return False
