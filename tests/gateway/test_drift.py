"""The comparison of photos with those of the last check."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from prometheus_client import CollectorRegistry

from car_analyzer import Analysis, AsyncCarAnalyzer
from car_analyzer.drift import Observation, Reference, photo_statistics
from car_analyzer.pixels import PixelSource
from car_analyzer_export.preprocess.photo import Photo
from car_analyzer_export.preprocess.view import View
from car_analyzer_gateway._app import make_app
from car_analyzer_gateway._drift import Drift
from car_analyzer_gateway._observers import AnsweredPhoto
from car_analyzer_gateway._settings import Settings
from tests.conftest import PATIENCE_S, edit, until

from .collecting import small_photo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from .conftest import Gateway

WINDOW = 12


def photos(samples: list[Path], count: int, light: float = 1.0) -> list[bytes]:
    """Copies of the demo's photos, each in a light of its own."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        with Image.open(samples[number % len(samples)]) as picture:
            lit = ImageEnhance.Brightness(picture.convert("RGB")).enhance(light * rng.uniform(0.7, 1.3))
        file = io.BytesIO()
        lit.save(file, "JPEG", quality=int(rng.integers(80, 95)))
        found.append(file.getvalue())
    return found


async def look_at_all(drift: Drift, client: AsyncCarAnalyzer, contents: list[bytes]) -> None:
    for number, content in enumerate(contents, start=1):
        drift.see(AnsweredPhoto(f"photo-{number}", content, await client.analyze(content, timeout=PATIENCE_S)))
        await idle(drift)


async def idle(drift: Drift) -> None:
    assert drift._task is not None
    await asyncio.wait({drift._task}, timeout=PATIENCE_S)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(f"car_analyzer_drift_{name}", labels) or 0.0


@pytest.fixture
def recorded(copy: Path, sample_photos: list[Path]) -> Path:
    """A repository whose model has the statistics of photos like `photos`; of answers, nothing."""
    contents = photos(sample_photos, 112)
    reference = Reference.of([Observation(photo_statistics(View().prepare(Photo(one)), one), {}) for one in contents])
    assert reference is not None
    text = reference.to_json()
    edit(copy, "car_analyzer", lambda config: setattr(config.parameters["drift"], "string_value", text))
    return copy


async def test_darker_photos_raise_an_alarm_and_are_named(
    recorded: Path,
    start_triton: Callable[..., Any],
    sample_photos: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = start_triton(recorded).grpc_url
    kept: list[tuple[str, str]] = []
    registry = CollectorRegistry()
    drift = Drift(
        PixelSource(url, "car_analyzer"),
        registry,
        1.0,
        lambda answered, reason: kept.append((answered.request_id, reason)),
        window=WINDOW,
    )
    async with AsyncCarAnalyzer(url) as client:
        await look_at_all(drift, client, photos(sample_photos, WINDOW))
        assert value(registry, "reference_photos") == 112
        assert value(registry, "photos_total", outcome="used") == WINDOW
        assert 0 < value(registry, "score", statistic="brightness") < 1
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

        await look_at_all(drift, client, photos(sample_photos, WINDOW, light=0.2))
        assert value(registry, "score", statistic="brightness") > 1
        (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert line.message == "the photos have changed"
        fields = vars(line)["fields"]
        assert any(change.startswith("photos are darker: median brightness 0.") for change in fields["changes"])
        assert (fields["compared"], fields["recorded"]) == (WINDOW, 112)
        assert len(fields["photos"]) == 10
        assert sorted(kept) == sorted((name, "drift") for name in fields["photos"])

        await look_at_all(drift, client, photos(sample_photos, WINDOW))
        later = [record.message for record in caplog.records[caplog.records.index(line) + 1 :]]
        assert [text for text in later if "photos" in text] == ["the photos are like the recorded ones again"]

        # One at a time.
        content = sample_photos[0].read_bytes()
        answered = AnsweredPhoto("photo", content, await client.analyze(content, timeout=PATIENCE_S))
        drift.see(answered)
        drift.see(answered)
        await idle(drift)
        assert value(registry, "photos_total", outcome="skipped") == 1
        # What Triton cannot prepare does not stop it.
        drift.see(AnsweredPhoto("broken", b"no photo", answered.analysis))
        await idle(drift)
        assert value(registry, "photos_total", outcome="failed") == 1
    await drift.close()


async def test_the_collection_takes_photos_until_the_comparison_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make_app(Settings(url="grpc://127.0.0.1:1", collect=str(tmp_path), drift=1)).state.gateway
    collection, drift = gateway.observers
    answered = AnsweredPhoto("photo", small_photo(), Analysis({}, 0.0, "1"))

    async def close() -> None:
        collection.keep(answered, "drift")

    monkeypatch.setattr(drift, "close", close)
    await collection.open()
    await gateway.close()
    kept = gateway.metrics.registry.get_sample_value("car_analyzer_collected_photos_total", {"reason": "drift"})
    assert kept == 1


async def test_without_a_server_photos_are_counted_as_failed() -> None:
    registry = CollectorRegistry()
    drift = Drift(PixelSource("grpc://127.0.0.1:1", "car_analyzer"), registry, 1.0)
    drift.see(AnsweredPhoto("photo", b"", Analysis({}, 0.0, "1")))
    await idle(drift)
    assert value(registry, "photos_total", outcome="failed") == 1
    await drift.close()


def test_a_model_without_recorded_photos_is_named_in_the_log(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    gateway = start_gateway(server.grpc_url, "--drift", "1")
    for _ in range(2):
        assert gateway.analyze(photo).status_code == 200
        counted = gateway.metric("car_analyzer_drift_photos_total")
        until(lambda before=counted: gateway.metric("car_analyzer_drift_photos_total") >= max(1, before))
    (line,) = [line for line in gateway.log() if "--drift" in line["message"]]
    assert line["advice"] == "export it with --check and a folder of at least 100 labelled photos"
    assert "request_id" not in line
    assert gateway.metric("car_analyzer_drift_reference_photos") == 0
    assert gateway.metric("car_analyzer_drift_photos_total", outcome="skipped") >= 1


def test_without_the_setting_nothing_is_compared(gateway: Gateway, photo: bytes) -> None:
    assert gateway.analyze(photo).status_code == 200
    assert "car_analyzer_drift" not in gateway.http.get("/metrics").text
