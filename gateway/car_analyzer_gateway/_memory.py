"""Limits the memory that photos leave behind."""

from __future__ import annotations

import contextlib
import ctypes
import gc

C = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Smaller buffers are reused: new memory would double the time that a photo takes. Larger ones would fragment the heap.
MMAP_FROM_BYTES = 4 * 2**20
KEPT_BYTES = 16 * 2**20
# A trim and a garbage collection take milliseconds: they are worth that once so many bytes may be garbage.
TRIM_EVERY_BYTES = 32_000_000
COLLECT_EVERY_BYTES = 4_000_000


class CompletedPhotos:
    """Returns memory to the system when no photo is in flight.

    Otherwise the process might stay as large as it was at the peak of a burst.
    """

    def __init__(self) -> None:
        self._size = 0

    def add(self, size: int, *, idle: bool) -> None:
        """Add a photo's size, and trim the heap if there may be enough and no other photo is in flight."""
        self._size += size
        if idle and self._size >= TRIM_EVERY_BYTES:
            self._size = 0
            with contextlib.suppress(AttributeError):  # not glibc
                C.malloc_trim(0)


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
    """Configure the C library's heap and the garbage collector. Call it after all imports.

    By default glibc raises both thresholds when large buffers are freed: each burst of large uploads would leave the
    heap more fragmented, and the next peak would be higher.
    """
    with contextlib.suppress(AttributeError):  # not glibc
        C.mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)
        C.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    # What exists now stays: the collector need not scan it again.
    gc.collect()
    gc.freeze()
