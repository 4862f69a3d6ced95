"""Every error that this package raises deliberately.

CarAnalyzerError
├── PhotoError             the photo is at fault: unreadable, not an image, too large   (also a ValueError)
├── ConfigurationError     a setting is: the URL, a timeout, an unsuitable model        (also a ValueError)
└── ServiceError           the service is at fault
    ├── UnreachableError       no server answers at the URL                             (also a ConnectionError)
    ├── OverloadedError        the server is too busy: UNAVAILABLE, 503, 429
    ├── DeadlineExceededError  no answer within the timeout                             (also a TimeoutError)
    ├── ModelNotReadyError     the model is unknown to the server, or not loaded
    └── ServerError            any other failure of the server
"""

from __future__ import annotations

# What `code` can be. Codes never change their meaning; docs/errors.md lists them for callers.
CODES = {
    "photo.empty": "the photo has no bytes",
    "photo.too_large": "the photo has too many bytes or pixels",
    "photo.unreadable": "the client cannot read the file",
    "photo.invalid": "the file is damaged, or not a photo in an accepted format",
    "configuration.invalid": "a setting is invalid, or a library is missing",
    "model.unsuitable": "the served model does not take photos, or does not describe its outputs",
    "model.not_explainable": "the served model was exported without what explaining its answers needs",
    "model.not_ready": "the model is unknown to the server, or not loaded",
    "service.unreachable": "no server answers at the URL",
    "service.overloaded": "the server is too busy",
    "service.deadline_exceeded": "there was no answer within the timeout",
    "service.failed": "the server failed, or its answer cannot be read",
}


class CarAnalyzerError(Exception):
    """The base class of all errors that this package raises deliberately.

    Attributes:
        code: The error for programs, such as `photo.too_large`; one of `CODES`. The message may change.
    """

    code = "service.failed"

    def __init__(self, *arguments: object, code: str | None = None) -> None:
        super().__init__(*arguments)
        if code is not None:
            self.code = code


class PhotoError(CarAnalyzerError, ValueError):
    """The photo cannot be analysed; other photos can."""

    code = "photo.invalid"


class ConfigurationError(CarAnalyzerError, ValueError):
    """A setting is invalid, or the client cannot read the served model's answers."""

    code = "configuration.invalid"


class ServiceError(CarAnalyzerError):
    """The service did not answer; the photo may be fine."""


class UnreachableError(ServiceError, ConnectionError):
    """No server answers at the URL."""

    code = "service.unreachable"


class OverloadedError(ServiceError):
    """The server rejected the photo because it is too busy; it may accept it later."""

    code = "service.overloaded"


class DeadlineExceededError(ServiceError, TimeoutError):
    """There was no answer within the timeout."""

    code = "service.deadline_exceeded"


class ModelNotReadyError(ServiceError):
    """The server answers, but the model is unknown, not loaded, or unloaded."""

    code = "model.not_ready"


class ServerError(ServiceError):
    """The server failed, or its answer cannot be read."""
