"""Giving memory back."""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD = -3
LARGE = 512 * 1024


def give_memory_back() -> None:
    """Has the C library return the memory of a photo when the photo is gone.

    Otherwise glibc takes the first large buffer that is freed as a sign to keep those to come: after a burst of large
    uploads a process stays as big as it was at its peak, and its next peak is higher.
    """
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
