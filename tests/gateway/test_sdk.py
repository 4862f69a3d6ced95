"""The SDK and the command line with a gateway's URL: the same results and errors as with Triton's."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from car_analyzer import (
    Analysis,
    AsyncCarAnalyzer,
    CarAnalyzer,
    DeadlineExceededError,
    PhotoError,
    Retry,
    ServerError,
    UnreachableError,
)
from car_analyzer._cli.main import main
from car_analyzer_gateway._explanations import Turns
from tests.conftest import PATIENCE_S

from .conftest import HEALTHY, Gateway
from .test_openapi import matches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reliability.proxy import Proxy


def timeless(analysis: Any) -> Analysis:
    """An analysis without its time, which differs."""
    assert isinstance(analysis, Analysis)
    assert analysis.processing_time_ms > 0
    return dataclasses.replace(analysis, processing_time_ms=0.0)


async def test_results_are_those_of_triton(
    gateway: Gateway, server: SimpleNamespace, sample_photos: list[Path]
) -> None:
    photos = sample_photos[:4]
    with CarAnalyzer(server.grpc_url) as triton, CarAnalyzer(gateway.url) as analyzer:
        direct = [timeless(triton.analyze(photo)) for photo in photos]
        assert [timeless(analyzer.analyze(photo)) for photo in photos] == direct
        assert [timeless(answer) for answer in analyzer.analyze_many(photos)] == direct
    assert direct[0].export_id
    async with AsyncCarAnalyzer(gateway.url) as client:
        assert [timeless(answer) async for answer in client.analyze_many(photos)] == direct


def test_explanations_are_those_of_triton(
    gateway: Gateway, server: SimpleNamespace, sample_photos: list[Path], tmp_path: Path
) -> None:
    with CarAnalyzer(server.grpc_url) as triton, CarAnalyzer(gateway.url) as analyzer:
        direct, answer = (client.analyze(sample_photos[1], explain=True) for client in (triton, analyzer))
    assert timeless(answer).heads.keys() == direct.heads.keys()
    for name in direct:
        mine, theirs = answer[name].explanation, direct[name].explanation
        assert mine is not None
        assert theirs is not None
        assert mine == theirs
        assert mine.maps.keys() == theirs.maps.keys()
        assert all(np.allclose(mine.maps[label], theirs.maps[label], atol=1e-3) for label in mine.maps)
    assert main(["analyze", str(sample_photos[1]), "--url", gateway.url, "--explain", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_explanations_for_a_web_page(gateway: Gateway, photo: bytes) -> None:
    answer = gateway.analyze(photo, params="explain=1").json()
    assert matches("Analysis", answer)
    assert list(answer)[-2:] == ["processingTime", "explanations"]
    for head in ("cleanliness", "condition"):
        explanation = answer["explanations"][head]
        assert explanation["labels"] == [answer[head]]
        assert explanation["box"] == {"left": 0, "top": 0, "width": 640, "height": 480}
        assert explanation["photo"] == {"width": 640, "height": 480, "orientation": 1}
        kind, _, content = explanation["overlay"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.mode == "RGBA"
    whole, bad = gateway.analyze(photo, b"no photo", params="explain=1&detail=full").json()
    assert matches("Analysis", whole)
    assert whole["explanations"]["condition"]["maps"].keys() == {"intact", "damaged"}
    assert bad["code"] == "photo.invalid"
    assert "explanations" not in gateway.analyze(photo, params="detail=full").json()


async def test_a_turn_that_does_not_come_in_time() -> None:
    turns = Turns(1)
    upload: Any = SimpleNamespace(time_left=PATIENCE_S)
    async with turns.take(upload):
        upload.time_left = 0.001
        with pytest.raises(DeadlineExceededError, match="explained"):
            async with turns.take(upload):
                pass
    upload.time_left = PATIENCE_S
    async with turns.take(upload):
        pass


def test_the_photo_is_sent_once(gateway: Gateway, photo: bytes) -> None:
    before = gateway.metric("car_analyzer_photo_bytes_count")
    with CarAnalyzer(gateway.url) as analyzer:
        for name in ("first", "second order/1"):
            analyzer.analyze(photo, request_id=name)
    assert gateway.metric("car_analyzer_photo_bytes_count") == before + 2
    assert [line["status"] for line in gateway.log_of("first")] == [200]


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"no photo", "photo.invalid"), (bytes(20_000_001), "photo.too_large")],
    ids=["no photo", "too large"],
)
def test_photos_at_fault(gateway: Gateway, photo: bytes, content: bytes, code: str) -> None:
    with CarAnalyzer(gateway.url) as analyzer:
        with pytest.raises(PhotoError) as caught:
            analyzer.analyze(content)
        assert caught.value.code == code
        assert analyzer.analyze(photo).ok


def test_the_command_line(gateway: Gateway, sample_photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--url", gateway.url, "--timeout", str(PATIENCE_S), "--wait", str(PATIENCE_S)]) == 0
    assert json.loads(capsys.readouterr().out) == {**HEALTHY, "url": gateway.url, "models": {}}
    assert main(["analyze", str(sample_photos[0]), "--url", gateway.url, "--with-model"]) == 0
    assert json.loads(capsys.readouterr().out).keys() >= {"cleanliness", "modelVersion", "exportId"}


def test_tokens(server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes) -> None:
    gateway = start_gateway(server.grpc_url, "--protect", "all", CAR_ANALYZER_TOKEN="open-sesame")
    with CarAnalyzer(gateway.url) as analyzer, pytest.raises(ServerError, match="headers="):
        analyzer.analyze(photo)
    with CarAnalyzer(gateway.url, headers={"Authorization": "Bearer open-sesame"}) as analyzer:
        assert analyzer.analyze(photo).ok
        assert analyzer.health(PATIENCE_S).ready


def test_a_gateway_without_a_triton(start_gateway: Callable[..., Gateway], photo: bytes) -> None:
    gateway = start_gateway("http://127.0.0.1:9")  # the port of `discard`
    with CarAnalyzer(gateway.url, retry=Retry(attempts=1)) as analyzer:
        health = analyzer.health(PATIENCE_S)
        assert not health.ready
        assert health.message == "the model server cannot be reached"
        with pytest.raises(UnreachableError, match="model server cannot be reached"):
            analyzer.analyze(photo)


def test_the_deadline_is_passed_on(
    server: SimpleNamespace, make_proxy: Callable[..., Proxy], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    proxy = make_proxy(server.http_url).listen()
    gateway = start_gateway(f"http://127.0.0.1:{proxy.port}", "--timeout", "600")
    with CarAnalyzer(gateway.url) as analyzer:
        assert analyzer.analyze(photo).ok
        proxy.freeze()
        with pytest.raises(DeadlineExceededError):
            analyzer.analyze(photo, timeout=1, request_id="mine")
        (line,) = gateway.log_of("mine")
        assert (line["status"], line["error"]) == (504, "deadline")
        proxy.thaw()


@pytest.mark.parametrize(
    "query",
    ["detail=", "detail=more", "timeout=", "timeout=soon", "timeout=-1", "timeout=nan", "explain=yes"],
)
def test_parameters_that_are_invalid(gateway: Gateway, photo: bytes, query: str) -> None:
    response = gateway.analyze(photo, params=query)
    assert response.status_code == 400
    assert response.json()["code"] == "request.invalid"
    assert query.partition("=")[0] in response.json()["error"]


def test_several_photos_in_full(gateway: Gateway, photo: bytes) -> None:
    whole, bad = gateway.analyze(photo, b"no photo", params="detail=full").json()
    assert whole["heads"]["condition"]["label"] == whole["condition"]
    assert len(whole["heads"]["condition"]["logits"]) == 2
    assert bad["code"] == "photo.invalid"
