"""Returns the memory of photos to the system as soon as they are done."""

from __future__ import annotations

import contextlib
import ctypes
import gc

M_MMAP_THRESHOLD = -3
MMAP_FROM_BYTES = 512 * 1024
# A garbage collection takes milliseconds: it is worth that once so many bytes may be garbage.
COLLECT_EVERY_BYTES = 4_000_000


class FailedPhotos:
    """Runs the garbage collector for photos whose analysis failed.

    An error refers to its call's frames, and these to the photo, in reference cycles. Python collects cycles rarely:
    while Triton is down, gigabytes of photos would accumulate.
    """

    def __init__(self) -> None:
        self._size = 0

    def add(self, size: int) -> None:
        """Add a photo's size, and collect garbage if there may be enough."""
        self._size += size
        if self._size >= COLLECT_EVERY_BYTES:
            self._size = 0
            gc.collect()


def tune_memory() -> None:
    """Let the C library return a photo's memory to the system when the photo is freed. Call it after all imports.

    By default glibc raises its mmap threshold when the first large buffer is freed, and keeps later ones: after a burst
    of large uploads the process stays as large as it was at its peak, and its next peak is higher.
    """
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)
    # What exists now stays: the collector need not scan it again.
    gc.collect()
    gc.freeze()
