"""This project's gateway in place of a Triton: its answers are complete, and have no logits to interpret."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._results import Analysis, Head, Health
from ..errors import (
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    ServerError,
    ServiceError,
    UnreachableError,
)
from .base import trace_context
from .http import BUSY_STATUSES

if TYPE_CHECKING:
    from .http import HttpTransport
    from .retry import Deadline

# The others are `ServerError`s.
ERRORS: dict[str, type[ServiceError]] = {
    kind.code: kind for kind in (OverloadedError, UnreachableError, DeadlineExceededError, ModelNotReadyError)
}
ERRORS["service.stopping"] = OverloadedError


class Gateway:
    """A gateway; see `Triton`, which has the same methods.

    Args:
        http: The connections to it.
        url: Its URL.

    Attributes:
        has_answered: True: it is known to be a gateway by its first answer.
    """

    has_answered = True

    def __init__(self, http: HttpTransport, url: str) -> None:
        self._http = http
        self._url = url

    async def analyze(self, photo: bytes, request_id: str, deadline: Deadline, *, explain: bool = False) -> Analysis:
        """Analyse one photo, and explain the answers if wanted, in one attempt."""
        headers = {"content-type": "application/octet-stream", **trace_context()}
        if request_id:
            headers["x-request-id"] = quote(request_id, safe="._:/+=-")
        start = time.perf_counter()
        timeout = max(deadline.left, 0.001)
        path = f"/analyze?detail=full&timeout={timeout:.3f}" + ("&explain=1" if explain else "")
        status, answered, content = await self._http.call("POST", path, timeout, photo, headers)
        elapsed = time.perf_counter() - start
        if status == 413 and _error_of(content) is None:
            too_large = f"{self._url} rejects a photo of {len(photo):,} bytes as too large"
            raise PhotoError(too_large, code="photo.too_large")
        if status != 200:
            raise self._translate(status, content)
        try:
            body = json.loads(content)
            heads = {name: _read_head(head) for name, head in body["heads"].items()}
            if explain:
                if "explanations" not in body:
                    raise ServerError(f"{self._url} did not explain the answers; update the gateway")
                heads = {name: _explained(head, body["explanations"][name]) for name, head in heads.items()}
            rotation = {"true": True, "false": False}.get(answered.get("exif-rotation", ""))
            return Analysis(heads, elapsed * 1000, body["modelVersion"], body.get("exportId"), rotation)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServerError(f"cannot read the answer of {self._url}: {error!r}") from error

    async def health(self, timeout: float) -> Health:
        """Check the gateway, which checks its Triton and all models."""
        status, _, content = await self._http.call("GET", "/health", timeout)
        try:
            body = json.loads(content)
            if status == 200 and body["status"] == "OK":
                description, demo = body.get("description"), body.get("demo") is True
                return Health(self._url, ready=True, server_ready=True, description=description, demo=demo)
            if status == 503 and body["status"] == "unavailable":
                return Health(self._url, ready=False, message=str(body["error"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        raise self._translate(status, content)

    def _translate(self, status: int, content: bytes) -> CarAnalyzerError:
        error = _error_of(content)
        if error is None:
            kind = OverloadedError if status in BUSY_STATUSES else ServerError
            return kind(f"{self._url} answered with status {status} and without the gateway's error message")
        message, code = error
        if code.startswith("photo."):
            return PhotoError(message, code=code)
        if code in ("configuration.invalid", "model.unsuitable", "model.not_explainable"):
            return ConfigurationError(message, code=code)
        if code == "request.unauthorized":
            return ServerError(f"{message}: send it with headers=")
        return ERRORS.get(code, ServerError)(message)


def _error_of(content: bytes) -> tuple[str, str] | None:
    """The sentence and the code of the gateway's error, or None if this is not an error of the gateway's."""
    try:
        body = json.loads(content)
        return str(body["error"]), str(body["code"])
    except (KeyError, TypeError, ValueError):
        return None


def _explained(head: Head, explanation: dict[str, Any]) -> Head:
    from .._explanation import read_explanation  # needs numpy, which takes long to import

    return replace(head, explanation=read_explanation(explanation))


def _read_head(head: dict[str, Any]) -> Head:
    labels = head["labels"]
    return Head(
        head["label"],
        head["confidence"],
        head["probabilities"],
        tuple(head["logits"]),
        None if labels is None else tuple(labels),
    )
