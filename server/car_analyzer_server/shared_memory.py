"""The shared memory through which Triton talks to the processes of its Python backend."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
# Each process needs 1 MB, and more for large batches.
_ENOUGH = 8_000_000


def new_prefix() -> str:
    """How the names of one Triton's regions start, and nobody else's."""
    return f"car_analyzer_{os.getpid()}_{secrets.token_hex(4)}_"


def remove(prefix: str) -> None:
    """Removes what a Triton left behind."""
    for region in _FOLDER.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def shortage() -> str:
    """A line that says so where there is too little of it; else nothing."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_FOLDER).free < _ENOUGH:
            return (
                f"\n{_FOLDER} is full: remove what nobody needs there, or give the container more of it "
                "(docker run --shm-size=1g)."
            )
    return ""
