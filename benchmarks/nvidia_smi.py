"""The GPU as `nvidia-smi` sees it."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def watching() -> Iterator[dict[str, Any]]:
    """Fills in, when the body ends, the GPU's mean `utilisation` in percent and its highest `memory` in MB, if any."""
    seen: dict[str, Any] = {}
    if gpu_name() is None:
        yield seen
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop-ms=250"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield seen
        finally:
            process.terminate()
            readings = []
            for line in process.communicate()[0].splitlines():
                with contextlib.suppress(ValueError):
                    readings.append([float(part) for part in line.split(",")])
            if readings:
                busy, memory = zip(*readings, strict=True)
                seen.update(utilisation=statistics.fmean(busy), memory=max(memory))


def gpu_name() -> str | None:
    """The first GPU; None if there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    ended = subprocess.run(query, capture_output=True, text=True, check=False)
    return ended.stdout.splitlines()[0] if ended.returncode == 0 and ended.stdout.strip() else None
