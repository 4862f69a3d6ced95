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
