"""What goes wrong, as callers are told: a status, a sentence, and a kind for the metrics.

What Triton said in its own words goes to the log only: it may name hosts, paths and lines of code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from car_analyzer import (
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

BUSY = "The service is busy; try again in a moment."


class AnswerError(Exception):
    """An answer that is an error.

    Args:
        status: The HTTP status.
        kind: For the metrics; one of few words.
        message: For the caller, a sentence.
        headers: More headers for the answer.
        details: For the log.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = dict(headers or {})
        self.details = details

    def response(self) -> Response:
        """The answer itself."""
        return error_response(self.status, self.message, self.headers)


class ClientGoneError(Exception):
    """The caller hung up: there is nobody to answer."""


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of the form that all errors have."""
    return JSONResponse({"error": message}, status, headers)


def no_photo(message: str) -> AnswerError:
    """The request is not one for a photo."""
    return AnswerError(400, "request", message)


def photo_too_large(limit: int) -> AnswerError:
    """A photo is over the limit."""
    return AnswerError(413, "too_large", f"The photo is too large; at most {limit:,} bytes are accepted.")


def too_busy(reason: str) -> AnswerError:
    """There is too much to do; later there may be less."""
    return AnswerError(503, "busy", BUSY, headers={"Retry-After": "1"}, details=reason)


def stopping() -> AnswerError:
    """The gateway was told to stop, and takes nothing new."""
    message = "The service is stopping; try again in a moment."
    return AnswerError(503, "stopping", message, headers={"Retry-After": "1", "Connection": "close"})


def from_sdk(error: CarAnalyzerError, timeout: float) -> AnswerError:
    """What an error of the SDK is to a caller.

    Args:
        error: The error. It is robbed of its tracebacks: they hold the photo in memory.
        timeout: The seconds that were given, for the message.
    """
    details = str(error)
    _forget_frames(error)
    if isinstance(error, PhotoError):
        return AnswerError(400, "photo", details)
    if isinstance(error, DeadlineExceededError):
        return AnswerError(504, "deadline", f"There was no answer within {timeout:g} seconds.", details=details)
    if isinstance(error, OverloadedError):
        return too_busy(details)
    later = {"Retry-After": "5"}
    if isinstance(error, UnreachableError):
        message = "The model server cannot be reached; try again in a moment."
        return AnswerError(503, "unreachable", message, headers=later, details=details)
    if isinstance(error, ModelNotReadyError):
        message = "The model is not loaded; try again in a moment."
        return AnswerError(503, "not_ready", message, headers=later, details=details)
    if isinstance(error, ConfigurationError):
        return AnswerError(502, "model", "The model server has a model that this gateway cannot read.", details=details)
    return AnswerError(502, "server", "The model server failed on this photo.", details=details)


def _forget_frames(error: BaseException | None) -> None:
    while error is not None:
        following = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = following
