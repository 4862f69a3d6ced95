"""What a gateway, or a proxy in front of it, may answer, without one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from car_analyzer import (
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    Head,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    Retry,
    ServerError,
    UnreachableError,
)
from car_analyzer._transports.gateway import Gateway
from car_analyzer._transports.http_connection import Response
from car_analyzer._transports.retry import Deadline, retry_call


class Answering:
    """Connections on which one response comes to every request."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._response = Response(status, headers or {}, content)
        self.sent: list[tuple[str, dict[str, str]]] = []

    async def call(self, _method: str, path: str, _timeout: float, _body: bytes = b"", headers: Any = None) -> Response:
        self.sent.append((path, headers))
        return self._response


def gateway_with(*response: Any) -> Gateway:
    return Gateway(Answering(*response), "http://gateway:5000")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "photo.invalid", PhotoError),
        (413, "photo.too_large", PhotoError),
        (400, "photo.empty", PhotoError),
        (502, "model.unsuitable", ConfigurationError),
        (502, "model.not_explainable", ConfigurationError),
        (503, "model.not_ready", ModelNotReadyError),
        (503, "service.unreachable", UnreachableError),
        (503, "service.overloaded", OverloadedError),
        (504, "service.deadline_exceeded", DeadlineExceededError),
        (502, "service.failed", ServerError),
    ],
)
async def test_errors_are_those_of_the_sdk(status: int, code: str, kind: type[CarAnalyzerError]) -> None:
    with pytest.raises(CarAnalyzerError, match="^A sentence.$") as caught:
        await gateway_with(status, {"error": "A sentence.", "code": code}).analyze(b"photo", "", Deadline(60))
    assert type(caught.value) is kind
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (503, {"error": "The service is stopping.", "code": "service.stopping"}, OverloadedError, "stopping"),
        (401, {"error": "A token is needed.", "code": "request.unauthorized"}, ServerError, "headers="),
        (404, {"error": "Nothing.", "code": "request.not_found"}, ServerError, "Nothing"),
        (400, {"error": "Strange.", "code": "request.of_a_later_version"}, ServerError, "Strange"),
        (429, b"slow down", OverloadedError, "status 429"),
        (503, b"<html>", OverloadedError, "status 503"),
        (413, b"<html>", PhotoError, "too large"),
        (302, b"", ServerError, "status 302"),
        (200, b"<html>", ServerError, "cannot read the answer"),
        (200, {"condition": "intact", "processingTime": 1.0}, ServerError, "cannot read the answer.*heads"),
        (200, {"heads": {"condition": 1}}, ServerError, "cannot read the answer"),
        (200, [], ServerError, "cannot read the answer"),
    ],
)
async def test_other_answers(status: int, body: Any, kind: type[CarAnalyzerError], words: str) -> None:
    with pytest.raises(kind, match=words):
        await gateway_with(status, body).analyze(b"photo", "", Deadline(60))


async def test_an_answer_of_a_multilabel_head() -> None:
    head = {
        "label": "dent, glass",
        "confidence": 0.75,
        "probabilities": {"dent": 0.75, "scratch": 0.125, "glass": 0.875},
        "logits": [1.0, -2.0, 2.0],
        "labels": ["dent", "glass"],
    }
    http = Answering(200, {"heads": {"damage": head}, "modelVersion": "3"}, {"exif-rotation": "true"})
    analysis = await Gateway(http, "http://gateway:5000").analyze(b"photo", "ä 1/2", Deadline(60))  # type: ignore[arg-type]
    probabilities = {"dent": 0.75, "scratch": 0.125, "glass": 0.875}
    assert analysis["damage"] == Head("dent, glass", 0.75, probabilities, (1.0, -2.0, 2.0), ("dent", "glass"))
    assert (analysis.version, analysis.export_id, analysis.exif_rotation) == ("3", None, True)
    ((path, headers),) = http.sent
    assert path.startswith("/analyze?detail=full&timeout=")
    assert headers["x-request-id"] == "%C3%A4%201/2"


async def test_health() -> None:
    ready = await gateway_with(200, {"status": "OK", "description": "Two models.", "demo": True}).health(5)
    assert (ready.ready, ready.description, ready.demo) == (True, "Two models.", True)
    missing = await gateway_with(503, {"status": "unavailable", "error": "not loaded: condition"}).health(5)
    assert (missing.ready, missing.message) == (False, "not loaded: condition")
    with pytest.raises(OverloadedError):
        await gateway_with(503, b"<html>").health(5)


async def test_the_limit_of_the_gateway_is_not_the_clients() -> None:
    error = {"error": "There was no answer within 30 seconds.", "code": "service.deadline_exceeded"}
    gateway, deadline = gateway_with(504, error), Deadline(600)
    with pytest.raises(DeadlineExceededError, match="within 30 seconds"):
        await retry_call(lambda _: gateway.analyze(b"photo", "", deadline), deadline, Retry(), lambda: True)


async def test_an_older_gateway_explains_nothing() -> None:
    body = {"heads": {}, "modelVersion": "1"}
    with pytest.raises(ServerError, match="did not explain the answers; update the gateway"):
        await gateway_with(200, body).analyze(b"photo", "", Deadline(60), explain=True)
