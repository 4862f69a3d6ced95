"""What Triton writes while it runs."""

from __future__ import annotations

import collections
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

_GPU_DRIVER = Path("/dev/nvidiactl")
# Triton's errors that only say that there is no GPU.
_SAID_WITHOUT_GPU = ("CUDA driver version is insufficient", "CudaDriverHelper", "NVML")
# How Triton's own lines start: severity, month, day. What the loader or a wrapper says does not.
_OWN_LINE = re.compile(r"[IWEF]\d{4} ")
# What our models, which are Python, say of accelerators: which they use, and when that takes minutes to prepare.
_ON_ACCELERATORS = re.compile(r"[IW]\d{4} .*\.py:\d+\].*\b(CUDA|DALI|GPU|TensorRT)\b")
# Said once while it stops, after the last answer.
_DRAINED = "All models are stopped, unloading models"


class Log:
    """Triton's log: held back while it starts, but for accelerators, unless it fails; passed on to stderr afterwards.

    Attributes:
        drained: Set when Triton, while it stops, says that nothing is in flight any more.
    """

    def __init__(self, *, visible: bool, on_first_line: Callable[[], None]) -> None:
        self.drained = threading.Event()
        self._on_first_line: Callable[[], None] | None = on_first_line
        self._always = visible
        self._visible = visible
        self._lines: collections.deque[str] = collections.deque(maxlen=1000)
        self._reader: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[str]) -> None:
        """Starts to read what a process writes."""
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def show(self) -> None:
        """Passes on what comes from now on."""
        self._visible = True

    def hide(self) -> None:
        """Stops passing it on."""
        self._visible = self._always

    def close(self) -> None:
        """Waits for the last line."""
        if self._reader is not None:
            self._reader.join(timeout=5)

    def errors(self) -> str:
        """The lines that say what went wrong, if there are any."""
        found = [line for line in self._lines if line.startswith(("E", "error:", "Unexpected"))]
        if not _GPU_DRIVER.exists():
            found = [line for line in found if not any(word in line for word in _SAID_WITHOUT_GPU)]
        return "".join(f"\n  {line}" for line in (found or list(self._lines))[-20:])

    def mentions(self, words: str) -> bool:
        """Whether a line has these words."""
        return any(words in line for line in self._lines)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        with process.stdout as lines:
            for line in lines:
                self._lines.append(line.rstrip())
                if _DRAINED in line:
                    self.drained.set()
                if self._on_first_line is not None and _OWN_LINE.match(line):
                    self._on_first_line()
                    self._on_first_line = None
                if self._visible or _ON_ACCELERATORS.match(line):
                    sys.stderr.write(line)
