"""What can go wrong in an export.

ExportError
├── SpecError           the spec, or the flags that stand for one
├── CheckpointError     a .pth file that cannot be read, or is not to be trusted
├── NetworkError        the architecture: not found, not a network, or not the one the weights belong to
├── AccuracyError       the networks do not know the labelled photos
├── VerificationError   the ONNX model does not say what PyTorch says
└── PublishError        the model repository cannot be written as asked, or the version cannot be served
    └── ControlError    the running Triton did not do what it was told
        ├── BusyError           it has more requests than it takes
        └── UnreachableError    nobody answers where it should run
"""

from __future__ import annotations

import re
import textwrap

# Terminal colours, and where in PyTorch's own sources something was noticed.
_NOISE = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]|\[enforce fail at [^\]]*\][ .]*"
    r"| INTERNAL ASSERT FAILED at \S+|,? please report a bug to PyTorch"
)
_LONGEST = 400


class ExportError(Exception):
    """Base of everything an export raises on purpose; the message is a sentence for the user."""


class SpecError(ExportError):
    """The spec is not well formed or contradicts itself."""


class CheckpointError(ExportError):
    """A checkpoint cannot be read, or reading it would run code."""


class NetworkError(ExportError):
    """The architecture cannot be built, or the weights do not fit it."""


class AccuracyError(ExportError):
    """The networks give too many wrong answers on labelled photos."""


class VerificationError(ExportError):
    """The exported model disagrees with PyTorch."""


class PublishError(ExportError):
    """The model repository cannot take the new version, or no Triton can serve it."""


class ControlError(PublishError):
    """The running Triton did not do what it was told."""


class BusyError(ControlError):
    """The running Triton has more requests than it takes."""


class UnreachableError(ControlError):
    """No Triton answers."""


def reason(error: BaseException) -> str:
    """The line of a library's error that says what went wrong, without a full stop: PyTorch's run over pages.

    What torch.onnx raises is about its own steps, and the cause says more. A heading takes its first point with it.
    TorchScript says first that, and where, something failed: its last line says what.
    """
    while error.__cause__ is not None and type(error).__module__.startswith("torch.onnx."):
        error = error.__cause__
    lines = [line for line in map(str.strip, _NOISE.sub("", str(error)).splitlines()) if line]
    if any(line.startswith("Traceback of TorchScript") for line in lines):
        lines = [lines[-1].removeprefix("RuntimeError: ").removeprefix("builtins.")]
    said = lines[0] if lines else type(error).__name__
    if said.endswith(":") and len(lines) > 1:
        said += f" {lines[1]}"
    return "".join(filter(str.isprintable, textwrap.shorten(said, _LONGEST, placeholder=" ..."))).rstrip(" .:")
