"""What can go wrong in an export.

ExportError
├── SpecError           the spec, or the options that replace one
├── CheckError          labelled photos that cannot be used
├── CheckpointError     a .pth file that cannot be read or is not trusted
├── NetworkError        the architecture: not found, not a network, or one that the weights do not fit
├── AccuracyError       the accuracy on labelled photos is too low
├── VerificationError   the ONNX model does not match PyTorch
└── PublishError        the model repository cannot be written, or the version cannot be served
    └── TritonRequestError          the running Triton rejected a request
        ├── TritonBusyError         it is overloaded
        └── TritonUnreachableError  nothing answers at its address
"""

from __future__ import annotations

import re
import textwrap

# Terminal colours, and source locations inside PyTorch.
_NOISE = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]|\[enforce fail at [^\]]*\][ .]*"
    r"| INTERNAL ASSERT FAILED at \S+|,? please report a bug to PyTorch"
)
_LONGEST = 400


class ExportError(Exception):
    """Base of all errors that an export raises deliberately; the message is a sentence for the user."""


class SpecError(ExportError):
    """The spec is invalid or contradicts itself."""


class CheckError(ExportError):
    """The labelled photos cannot be read, or none of them can be checked."""


class CheckpointError(ExportError):
    """A checkpoint cannot be read, or reading it would run code."""


class NetworkError(ExportError):
    """The architecture cannot be built, or the weights do not fit it."""


class AccuracyError(ExportError):
    """A head gives too many wrong answers on labelled photos."""


class VerificationError(ExportError):
    """The exported model does not match PyTorch."""


class PublishError(ExportError):
    """The model repository cannot store the new version, or Triton cannot serve it."""


class TritonRequestError(PublishError):
    """The running Triton rejected a request, or did not answer it."""


class TritonBusyError(TritonRequestError):
    """The running Triton is overloaded."""


class TritonUnreachableError(TritonRequestError):
    """No Triton answers."""


def reason(error: BaseException) -> str:
    """Returns the line of a library's error that names the problem, without a full stop: PyTorch's messages are pages.

    An error from torch.onnx describes its own step, so the cause is used. A heading is joined with the line below it.
    TorchScript reports the failed call first; its last line has the problem.
    """
    while error.__cause__ is not None and type(error).__module__.startswith("torch.onnx."):
        error = error.__cause__
    lines = [line for line in map(str.strip, _NOISE.sub("", str(error)).splitlines()) if line]
    if any(line.startswith("Traceback of TorchScript") for line in lines):
        lines = [lines[-1].removeprefix("RuntimeError: ").removeprefix("builtins.")]
    text = lines[0] if lines else type(error).__name__
    if text.endswith(":") and len(lines) > 1:
        text += f" {lines[1]}"
    return "".join(filter(str.isprintable, textwrap.shorten(text, _LONGEST, placeholder=" ..."))).rstrip(" .:")
