"""The errors that callers see: a status, a sentence, a code for programs, and a kind for the metrics.

Triton's own messages are only logged: they may contain hosts, paths and lines of code.
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

# The code of an error with that status, unless it has one of its own. The SDK's are in `car_analyzer.errors.CODES`.
CODES = {
    400: "request.invalid",
    401: "request.unauthorized",
    404: "request.not_found",
    405: "request.method_not_allowed",
    408: "request.timeout",
    409: "request.conflict",
    413: "request.too_large",
    415: "request.media_type",
    503: "service.overloaded",
}
STOPPING = "service.stopping"
UNKNOWN_PHOTO = "feedback.unknown_photo"
INVALID_FEEDBACK = "feedback.invalid"
BUSY = "The service is busy; try again in a moment."


class GatewayError(Exception):
    """An error that becomes the response.

    Args:
        status: The HTTP status.
        kind: A label for the metrics.
        message: A sentence for the caller.
        code: For programs; None: the one of the status.
        headers: Further headers of the response.
        details: For the log.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.details = details

    def body(self) -> dict[str, str]:
        """The JSON of the response."""
        return error_body(self.status, self.message, self.code)

    def response(self) -> Response:
        """The response."""
        return JSONResponse(self.body(), self.status, self.headers)


class ClientDisconnectedError(Exception):
    """The client closed the connection, so there is no response."""


def error_body(status: int, message: str, code: str | None = None) -> dict[str, str]:
    """The JSON of all errors."""
    return {
        "error": message,
        "code": code or CODES.get(status, "request.invalid" if status < 500 else "service.failed"),
    }


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response in the format of all errors."""
    return JSONResponse(error_body(status, message), status, headers)


def bad_request(message: str) -> GatewayError:
    """The request contains no photo."""
    return GatewayError(400, "request", message)


def photo_too_large(limit: int) -> GatewayError:
    """A photo is larger than the limit in bytes."""
    message = f"The photo is too large; at most {limit:,} bytes are accepted."
    return GatewayError(413, "too_large", message, code="photo.too_large")


def busy(details: str) -> GatewayError:
    """The service is overloaded at the moment."""
    return GatewayError(503, "busy", BUSY, headers={"Retry-After": "1"}, details=details)


def stopping() -> GatewayError:
    """The gateway is shutting down and accepts nothing new."""
    message = "The service is stopping; try again in a moment."
    headers = {"Retry-After": "1", "Connection": "close"}
    return GatewayError(503, "stopping", message, code=STOPPING, headers=headers)


def from_sdk(error: CarAnalyzerError, timeout: float) -> GatewayError:
    """Convert an error of the SDK.

    Args:
        error: The error. Its tracebacks are cleared; they would keep the photo in memory.
        timeout: The timeout in seconds, for the message.
    """
    details = str(error)
    _clear_tracebacks(error)
    headers: dict[str, str] = {}
    match error:
        case PhotoError():
            status, kind, message = 400, "photo", details
        case DeadlineExceededError():
            status, kind, message = 504, "deadline", f"There was no answer within {timeout:g} seconds."
        case OverloadedError():
            return busy(details)
        case UnreachableError():
            status, kind, message = 503, "unreachable", "The model server cannot be reached; try again in a moment."
            headers = {"Retry-After": "5"}
        case ModelNotReadyError():
            status, kind, message = 503, "not_ready", "The model is not loaded; try again in a moment."
            headers = {"Retry-After": "5"}
        case ConfigurationError(code="model.not_explainable"):
            status, kind, message = (
                502,
                "model",
                "The model cannot explain its answers; export it with a newer version.",
            )
        case ConfigurationError():
            status, kind, message = 502, "model", "The model server has a model that this gateway cannot read."
        case _:
            status, kind, message = 502, "server", "The model server failed on this photo."
    return GatewayError(status, kind, message, code=error.code, headers=headers, details=details)


def _clear_tracebacks(error: BaseException | None) -> None:
    while error is not None:
        following = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = following
