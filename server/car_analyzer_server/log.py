"""Triton's log."""

from __future__ import annotations

import collections
import functools
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

_GPU_DRIVER = Path("/dev/nvidiactl")
# Lines that Triton always logs on machines without a GPU, some at each load of a model.
_LINES_WITHOUT_GPU = (
    "CUDA driver version is insufficient",
    "CudaDriverHelper",
    "NVML",
    "DCGM unable to start",
    "failed to allocate pinned system memory",
)
# The prefix of Triton's own lines: severity, month, day. Lines of the loader or of a wrapper do not have it.
_OWN_LINE = re.compile(r"[IWEF]\d{4} ")
# Lines of our Python models about accelerators: which they use or miss, and preparations that take minutes.
_ACCELERATOR_LINE = re.compile(r"[IW]\d{4} .*\.py:\d+\].*\b(cykooz|CUDA|DALI|GPU|TensorRT)\b")
# Lines that say which device a network runs on: the official ONNX Runtime backend's, and ours about the CPU.
_DEVICE_LINE = re.compile(r"I\d{4} .*(\bonnxruntime\.cc:\d+\].*ModelInstanceInitialize: |\.py:\d+\].* runs on the CPU)")
# Logged once during shutdown, after the last response.
_DRAINED = "All models are stopped, unloading models"


class Log:
    """Collects Triton's log. Forwards it to stderr once Triton is ready; before, only lines about accelerators.

    With a GPU, these include the device of each network. Without a GPU, one line replaces Triton's errors about it,
    unless the log is `visible` from the start.

    Attributes:
        drained: Set when Triton logs, during shutdown, that no requests are in flight.
    """

    def __init__(self, *, visible: bool, on_first_line: Callable[[], None]) -> None:
        self.drained = threading.Event()
        self._on_first_line: Callable[[], None] | None = on_first_line
        self._always = visible
        self._visible = visible
        self._lines: collections.deque[str] = collections.deque(maxlen=1000)
        self._reader: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[str]) -> None:
        """Starts to read the output of a process."""
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def show(self) -> None:
        """Starts to forward lines to stderr."""
        self._visible = True

    def hide(self) -> None:
        """Stops forwarding."""
        self._visible = self._always

    def close(self) -> None:
        """Waits for the last line."""
        if self._reader is not None:
            self._reader.join(timeout=5)

    def errors(self) -> str:
        """The last error lines; without any, the last lines."""
        found = [line for line in self._lines if line.startswith(("E", "error:", "Unexpected"))]
        found = [line for line in found if not _is_about_missing_gpu(line)]
        return "".join(f"\n  {line}" for line in (found or list(self._lines))[-20:])

    def mentions(self, words: str) -> bool:
        """Whether a line contains these words."""
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
                if not self._always and _is_about_missing_gpu(line):
                    _report_missing_gpu()
                elif self._visible or _is_about_accelerators(line):
                    sys.stderr.write(line)


def _is_about_missing_gpu(line: str) -> bool:
    return any(words in line for words in _LINES_WITHOUT_GPU) and not _GPU_DRIVER.exists()


def _is_about_accelerators(line: str) -> bool:
    return bool(_ACCELERATOR_LINE.match(line) or (_DEVICE_LINE.match(line) and _GPU_DRIVER.exists()))


@functools.cache  # once, however often Triton is started
def _report_missing_gpu() -> None:
    print("There is no GPU here: Triton runs on the CPU.", file=sys.stderr)
