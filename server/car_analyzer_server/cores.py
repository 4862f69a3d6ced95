"""The number of processor cores that this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def cores() -> int:
    """The number of cores that this process may use, within the CPU limit of its container."""
    allowed = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        return max(1, min(allowed, math.ceil(_quota())))
    return allowed


def _quota() -> float:
    """The CPU quota of the control group, version 2 or 1. Raises ValueError if there is none."""
    if _QUOTAS[0].exists():
        quota, period = _QUOTAS[0].read_text().split()
        return int(quota) / int(period)  # quota is "max" without a limit
    limit = int(_QUOTAS[1].read_text())
    if limit < 0:
        raise ValueError
    return limit / int(_PERIOD.read_text())
