"""What is left of Tritons that were killed together with whoever would have cleaned up after them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

from . import shared_memory, stubs

_END_SECONDS = 5


def remove_leftovers() -> None:
    """Ends processes of the Python backend that have no Triton, and removes shared memory that no process uses.

    Such processes can wait for ever in the locks of that memory. What belongs to a living Triton is left alone.
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
            # Its memory is free once it is gone.
            return bool(select.select([process], [], [], _END_SECONDS)[0])
        finally:
            os.close(process)
    return False
