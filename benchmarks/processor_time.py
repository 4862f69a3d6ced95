"""Processor time of a Triton, by kind of process: Triton itself, and the Python processes of each model."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from reliability.processes import is_stub


def processor_seconds(pid: int) -> Counter[str]:
    """Seconds of processor time so far of a Triton and its Python backend: `Triton` and the models → seconds."""
    triton = psutil.Process(pid)
    seconds: Counter[str] = Counter()
    for process in (triton, *filter(_is_running_stub, triton.children())):
        # A process that ends meanwhile takes its time with it.
        with suppress(psutil.NoSuchProcess):
            seconds["Triton" if process == triton else _model(process)] += sum(process.cpu_times()[:2])
    return seconds


def _is_running_stub(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return is_stub(process)
    return False


def _model(stub: psutil.Process) -> str:
    """`…/MODEL/VERSION/FILE` is its first argument."""
    return Path(stub.cmdline()[1]).parents[1].name
