"""The processes in which Triton's Python backend runs models, and which of them died.

Triton neither restarts such a process nor stops calling its model ready.
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
_NAME = "triton_python_b"  # as far as the kernel keeps a process's name


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
        instances: How many processes a model should have at least; 0 for one that is not loaded.
    """

    def __init__(self, triton: int, instances: Callable[[str], int]) -> None:
        self._triton = triton
        self._instances = instances
        self._models: dict[int, str] = {}
        self._ended: dict[int, int] = {}
        self._told: set[int] = set()
        self._counts: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()

    def look(self) -> list[Stub]:
        """Looks at them now.

        Returns:
            Those that died since, each only once. A stub that Triton ends itself is not among them: Triton takes such
            a one off the list of processes at once, while one that died is mostly still there when looked at again.
            Of one that died before the first look nothing is known; `short` tells of both.
        """
        ended = {}
        models = {}
        for pid in _children(self._triton):
            found = _read(pid)
            if found is None:
                continue
            exit_code, model = found
            model = model or self._models.get(pid, "")
            if not model:
                continue
            models[pid] = model
            if exit_code is not None:
                ended[pid] = exit_code
        dead = [
            Stub(pid, models[pid], exit_code)
            for pid, exit_code in ended.items()
            if pid in self._ended and pid not in self._told
        ]
        self._models, self._ended = models, ended
        self._told = {pid for pid in self._told if pid in models} | {stub.pid for stub in dead}
        return dead

    def short(self) -> list[str]:
        """Models that had too few processes, or none any more, at the last two looks, each only once."""
        counts = Counter(model for pid, model in self._models.items() if pid not in self._ended)
        steady = [
            model for model in {**counts, **self._judged} if counts[model] == self._counts[model] != self._judged[model]
        ]
        self._counts = counts
        self._judged.update({model: counts[model] - self._judged[model] for model in steady})
        return [model for model in steady if counts[model] < self._instances(model)]

    def alive(self, model: str) -> int:
        """How many of a model's processes were running at the last look."""
        return sum(1 for pid, name in self._models.items() if name == model and pid not in self._ended)


def _children(triton: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        # A child belongs to the thread that started it, for as long as there is this thread.
        for thread in (_PROC / str(triton) / "task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return children


def orphans() -> list[int]:
    """The stubs, of this user and of Tritons that a `Server` started, whose Triton is gone.

    Such a Triton and its stubs have a session of their own. Who is orphaned gets a parent outside of it.
    """
    found = []
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(process.name)
            name, (_, parent, _, session, *_) = _stat(pid)
            if name != _NAME or process.stat().st_uid != os.getuid():
                continue
            # The second argument is the name of its region. A zombie has none.
            if is_ours(os.fsdecode(_words(pid)[2])) and _session(parent) != session:
                found.append(pid)
    return found


def _session(pid: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _stat(int(pid))[1][3]
    return None


def _read(pid: int) -> tuple[int | None, str] | None:
    """The exit code and the model of a stub, as far as it still has them; None for any other process."""
    try:
        name, fields = _stat(pid)
        if name != _NAME:
            return None
        if fields[0] == "Z":
            # Field 52 of proc_pid_stat(5); only the state and what follows is counted here.
            return os.waitstatus_to_exitcode(int(fields[49])), ""
        words = _words(pid)
    except (OSError, ValueError, IndexError):
        return None
    # The first argument is the model's file: REPOSITORY/MODEL/VERSION/FILE.
    return None, Path(os.fsdecode(words[1])).parents[1].name if len(words) > 1 else ""


def _stat(pid: int) -> tuple[str, list[str]]:
    """A process's name, and the fields that follow it in proc_pid_stat(5)."""
    name, _, rest = (_PROC / str(pid) / "stat").read_text().partition("(")[2].rpartition(")")
    return name, rest.split()


def _words(pid: int) -> list[bytes]:
    return (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
