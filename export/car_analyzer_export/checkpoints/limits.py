"""Limits what reading a file may take."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def limited_memory(most: int) -> Iterator[None]:
    """Makes allocations fail with a MemoryError once the process has taken that many bytes more.

    Counts address space, so keep anything that starts threads out of the block. Only Linux has this.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if soft == resource.RLIM_INFINITY or taken + most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (taken + most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
