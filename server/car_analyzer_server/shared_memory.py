"""The shared memory through which Triton talks to the processes of its Python backend."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_OURS = "car_analyzer_"
# Each process needs 1 MB, and more for large batches.
_ENOUGH = 8_000_000


def new_prefix() -> str:
    """How the names of one Triton's regions start, and nobody else's."""
    return f"{_OURS}{os.getpid()}_{secrets.token_hex(4)}_"


def remove(prefix: str) -> None:
    """Removes what a Triton left behind."""
    for region in _FOLDER.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def is_ours(region: str) -> bool:
    """Whether it is the name of a region of a Triton that a `Server` started."""
    return region.startswith(_OURS)


def remove_unused() -> int:
    """Removes the regions of all Tritons that a `Server` of this user started, but for those that somebody has open.

    Returns:
        How many.
    """
    removed = 0
    for region in _FOLDER.glob(f"{_OURS}*"):
        with contextlib.suppress(OSError):
            if region.stat().st_uid == os.getuid() and not _is_open(region):
                region.unlink()
                removed += 1
    return removed


def _is_open(file: Path) -> bool:
    """Whether any process, be it in another container, has a file open or mapped for writing."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        # The kernel gives a read lease only where nobody could write.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def shortage() -> str:
    """A line that says so where there is too little of it; else nothing."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_FOLDER).free < _ENOUGH:
            return (
                f"\n{_FOLDER} is full: remove what nobody needs there, or give the container more of it "
                "(docker run --shm-size=1g)."
            )
    return ""
