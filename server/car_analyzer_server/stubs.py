"""Watches the stub processes, in which Triton's Python backend runs models, and detects which of them died.

Triton does not restart a stub process that died, and still reports its model as ready.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .shared_memory import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable

_PROC = Path("/proc")
_NAME = "triton_python_b"  # the kernel truncates process names


@dataclass(frozen=True)
class Stub:
    """A process that runs, or ran, one instance of a model.

    Attributes:
        pid: Its process id.
        model: The model.
        exit_code: None while it runs; negative for the signal that killed it.
    """

    pid: int
    model: str
    exit_code: int | None = None


class Stubs:
    """Watches the stubs of a Triton.

    Args:
        triton: The process id of the Triton.
        instances: Returns the least number of processes of a version of a model; 0 if it is not loaded. While two
            versions are loaded, the processes of one do not replace those of the other.
    """

    def __init__(self, triton: int, instances: Callable[[str, str], int]) -> None:
        self._triton = triton
        self._instances = instances
        self._models: dict[int, tuple[str, str]] = {}
        self._ended: dict[int, int] = {}
        self._reported: set[int] = set()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._reported_counts: Counter[tuple[str, str]] = Counter()

    def look(self) -> list[Stub]:
        """Updates the state of the stubs.

        Returns:
            The stubs that died since the last call, each only once. Stubs that Triton ended itself are not included:
            Triton reaps them immediately, while a stub that died is usually still a zombie at the second call. Stubs
            that died before the first call are not known; `short` detects both.
        """
        ended = {}
        models = {}
        for pid in _children(self._triton):
            found = _read(pid)
            if found is None:
                continue
            exit_code, model = found
            model = model or self._models.get(pid)
            if model is None:
                continue
            models[pid] = model
            if exit_code is not None:
                ended[pid] = exit_code
        dead = [
            Stub(pid, models[pid][0], exit_code)
            for pid, exit_code in ended.items()
            if pid in self._ended and pid not in self._reported
        ]
        self._models, self._ended = models, ended
        self._reported = {pid for pid in self._reported if pid in models} | {stub.pid for stub in dead}
        return dead

    def short(self) -> list[str]:
        """The models that had too few processes at the last two calls of `look`, each only once."""
        counts = Counter(model for pid, model in self._models.items() if pid not in self._ended)
        steady = [
            model
            for model in {**counts, **self._reported_counts}
            if counts[model] == self._counts[model] != self._reported_counts[model]
        ]
        self._counts = counts
        for model in steady:
            self._reported_counts[model] = counts[model]
        # Once for all its versions, which are renewed together.
        return list(dict.fromkeys(model[0] for model in steady if counts[model] < self._instances(*model)))

    def alive(self, model: str) -> int:
        """The number of a model's processes that were running at the last call of `look`."""
        return sum(1 for pid, (name, _) in self._models.items() if name == model and pid not in self._ended)


def _children(triton: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        # A child belongs to the thread that started it, as long as that thread exists.
        for thread in (_PROC / str(triton) / "task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return children


def orphans() -> list[int]:
    """The stubs of this user, of Tritons that a `Server` started, whose Triton has ended.

    Such a Triton and its stubs have a separate session. An orphan's new parent is outside of it.
    """
    found = []
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(process.name)
            name, (_, parent, _, session, *_) = _stat(pid)
            if name != _NAME or process.stat().st_uid != os.getuid():
                continue
            # The second argument is the name of its region. A zombie has no arguments.
            if is_ours(os.fsdecode(_words(pid)[2])) and _session(parent) != session:
                found.append(pid)
    return found


def _session(pid: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _stat(int(pid))[1][3]
    return None


def _read(pid: int) -> tuple[int | None, tuple[str, str] | None] | None:
    """The exit code (None while it runs), and model and version (None if unknown) of a stub; None for any other."""
    try:
        name, fields = _stat(pid)
        if name != _NAME:
            return None
        if fields[0] == "Z":
            # Field 52 of proc_pid_stat(5); `fields` starts with field 3, the state.
            return os.waitstatus_to_exitcode(int(fields[49])), None
        words = _words(pid)
    except (OSError, ValueError, IndexError):
        return None
    # The first argument is the model's file: REPOSITORY/MODEL/VERSION/FILE.
    if len(words) < 2:
        return None, None
    version, model, *_ = Path(os.fsdecode(words[1])).parents
    return None, (model.name, version.name)


def _stat(pid: int) -> tuple[str, list[str]]:
    """A process's name, and the fields that follow it in proc_pid_stat(5)."""
    name, _, rest = (_PROC / str(pid) / "stat").read_text().partition("(")[2].rpartition(")")
    return name, rest.split()


def _words(pid: int) -> list[bytes]:
    return (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
