"""The shared memory between Triton and the processes of its Python backend."""

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
    """A unique prefix for the names of one Triton's regions."""
    return f"{_OURS}{os.getpid()}_{secrets.token_hex(4)}_"


def remove(prefix: str) -> None:
    """Removes all regions with a prefix."""
    for region in _FOLDER.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def is_ours(region: str) -> bool:
    """Whether a region's name is that of a Triton started by a `Server`."""
    return region.startswith(_OURS)


def remove_unused() -> int:
    """Removes the regions of all Tritons that a `Server` of this user started, unless a process has them open.

    Returns:
        The number of removed regions.
    """
    removed = 0
    for region in _FOLDER.glob(f"{_OURS}*"):
        with contextlib.suppress(OSError):
            if region.stat().st_uid == os.getuid() and not _is_open(region):
                region.unlink()
                removed += 1
    return removed


def _is_open(file: Path) -> bool:
    """Whether any process, even in another container, has a file open or mapped for writing."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        # The kernel grants a read lease only if no process can write.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def shortage() -> str:
    """A line for an error message if shared memory is full; otherwise an empty string."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_FOLDER).free < _ENOUGH:
            return (
                f"\n{_FOLDER} is full: remove unused files there, or give the container more shared memory "
                "(docker run --shm-size=1g)."
            )
    return ""
