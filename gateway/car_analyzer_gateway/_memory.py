"""Giving memory back."""

from __future__ import annotations

import contextlib
import ctypes
import gc

M_MMAP_THRESHOLD = -3
LARGE = 512 * 1024


# Collecting garbage takes milliseconds; it is worth them once so many bytes may be in it.
WORTH_COLLECTING = 4_000_000


class Litter:
    """Photos whose analysis failed. Errors refer to the calls they came from, and those to their photos: in circles.

    Python would find these circles some day. Long before, a Triton that is down would cost gigabytes.
    """

    def __init__(self) -> None:
        self._size = 0

    def add(self, size: int) -> None:
        """Note a photo's size, and clean up if it is time."""
        self._size += size
        if self._size >= WORTH_COLLECTING:
            self._size = 0
            gc.collect()


def give_memory_back() -> None:
    """Has the C library return the memory of a photo when the photo is gone.

    Otherwise glibc takes the first large buffer that is freed as a sign to keep those to come: after a burst of large
    uploads a process stays as big as it was at its peak, and its next peak is higher. To be called once everything is
    imported.
    """
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
    # What is there now stays: the collector need not look through it again.
    gc.collect()
    gc.freeze()
