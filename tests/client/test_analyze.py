"""One photo at a time, in every format, over both protocols, compared with PyTorch."""

from __future__ import annotations

import asyncio
import gc
import io
import shutil
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from car_analyzer import Analysis, AsyncCarAnalyzer, CarAnalyzer, ConfigurationError, ModelNotReadyError, PhotoError
from tests.conftest import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    Reference = Callable[[bytes], dict[str, list[float]]]

KINDS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "str": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file": lambda path: io.BytesIO(path.read_bytes()),
    "pillow": lambda path: Image.open(io.BytesIO(path.read_bytes())),
    "array": lambda path: np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")),
}
LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}


def check(analysis: Analysis, expected: dict[str, list[float]]) -> None:
    assert list(analysis.heads) == list(LABELS)
    for name, labels in LABELS.items():
        head = analysis.heads[name]
        assert head.logits == pytest.approx(expected[name], abs=2e-3)
        assert tuple(head.probabilities) == labels
        assert head.label == labels[int(expected[name][1] > expected[name][0])]
        assert head.confidence == max(head.probabilities.values()) >= 0.5
        assert sum(head.probabilities.values()) == pytest.approx(1)
    assert analysis.processing_time_ms > 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_photo(url: str, kind: str, sample_photos: list[Path], reference: Reference) -> None:
    with CarAnalyzer(url) as analyzer:
        for path in sample_photos[:3]:
            check(analyzer.analyze(KINDS[kind](path)), reference(path.read_bytes()))


def test_real_photos(url: str, real_photos: list[Path], reference: Reference) -> None:
    with CarAnalyzer(url) as analyzer:
        for path, result in zip(real_photos, analyzer.analyze_many(real_photos), strict=True):
            assert result.ok, path
            expected = reference(path.read_bytes())
            for name, labels in LABELS.items():
                assert result.heads[name].label == labels[int(expected[name][1] > expected[name][0])], path


async def test_async_client_answers_the_same(url: str, sample_photos: list[Path], reference: Reference) -> None:
    async with AsyncCarAnalyzer(url) as analyzer:
        results = await asyncio.gather(*(analyzer.analyze(path, request_id=path.name) for path in sample_photos))
    for path, result in zip(sample_photos, results, strict=True):
        check(result, reference(path.read_bytes()))


def test_bad_photos_are_photo_errors_in_words(url: str, sample_photos: list[Path]) -> None:
    with CarAnalyzer(url) as analyzer:
        good = sample_photos[0].read_bytes()
        for bad in (b"this is no photo", good[: len(good) // 2], b"\0" * 1000):
            with pytest.raises(PhotoError) as caught:
                analyzer.analyze(bad)
            assert "ensemble" not in str(caught.value)
            assert len(str(caught.value)) > 10
        assert analyzer.analyze(good).ok


def test_large_photos_pass(url: str) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (2200, 2600, 3), np.uint8)
    with CarAnalyzer(url) as analyzer:
        assert analyzer.analyze(noise).ok  # 17 MB of PNG: over gRPC's usual limit of 4 MB
        with pytest.raises(PhotoError):
            analyzer.analyze(b"\xff\xd8" + bytes(21_000_000))


def test_unknown_model_is_not_ready(url: str, sample_photos: list[Path]) -> None:
    with CarAnalyzer(url, model="car_analyser") as analyzer:
        with pytest.raises(ModelNotReadyError, match="car_analyser"):
            analyzer.analyze(sample_photos[0])
        health = analyzer.health(PATIENCE_S)
        assert (health.ready, health.server_ready, health.models) == (False, True, {"car_analyser": False})
        with pytest.raises(TimeoutError, match="not ready within|no answer from"):
            analyzer.wait_until_ready(1)


def test_model_without_heads_is_refused(url: str, sample_photos: list[Path]) -> None:
    with (
        CarAnalyzer(url, model="preprocess") as analyzer,
        pytest.raises(ConfigurationError, match="car-analyzer export"),
    ):
        analyzer.analyze(sample_photos[0])


def test_health_names_every_model(url: str) -> None:
    with CarAnalyzer(url) as analyzer:
        analyzer.wait_until_ready(PATIENCE_S)
        health = analyzer.health(PATIENCE_S)
    assert (health.ready, health.server_ready, health.url, health.message) == (True, True, url, None)
    assert health.models == dict.fromkeys(["car_analyzer", "preprocess", "cleanliness", "condition"], True)


def test_closed_client_says_so(url: str, sample_photos: list[Path]) -> None:
    analyzer = CarAnalyzer(url)
    analyzer.analyze(sample_photos[0])
    analyzer.close()
    analyzer.close()
    with pytest.raises(RuntimeError, match="closed"):
        analyzer.analyze(sample_photos[0])
    with pytest.raises(RuntimeError, match="closed"):
        list(analyzer.analyze_many(sample_photos))


def test_forgotten_client_leaves_nothing(url: str, sample_photos: list[Path]) -> None:
    before = set(threading.enumerate())
    analyzer = CarAnalyzer(url)
    analyzer.analyze(sample_photos[0])
    (mine,) = [thread for thread in set(threading.enumerate()) - before if thread.name == "car-analyzer"]
    del analyzer
    gc.collect()
    mine.join(PATIENCE_S)
    assert not mine.is_alive()
    gc.collect()  # where a ResourceWarning would come up


def test_async_client_belongs_to_its_loop(url: str, sample_photos: list[Path]) -> None:
    async def use(analyzer: AsyncCarAnalyzer) -> None:
        await analyzer.analyze(sample_photos[0])

    async def misuse() -> None:
        async with AsyncCarAnalyzer(url) as analyzer:
            await use(analyzer)
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, use(analyzer))
        with pytest.raises(RuntimeError, match="closed"):
            await use(analyzer)

    asyncio.run(misuse())


def test_class_order_follows_the_server(
    server: SimpleNamespace, tmp_path: Path, sample_photos: list[Path], start_server: Callable[..., Any]
) -> None:
    """A new export swaps two labels while clients are connected: they must notice by themselves."""
    repository = tmp_path / "repository"
    shutil.copytree(server.repository, repository)
    ensemble = repository / "car_analyzer"
    version = max(int(folder.name) for folder in ensemble.iterdir() if folder.name.isdecimal())
    mine = start_server(repository)
    with CarAnalyzer(mine.grpc_url) as grpc, CarAnalyzer(mine.http_url) as http:
        before = [analyzer.analyze(sample_photos[0]).cleanliness for analyzer in (grpc, http)]
        config = (ensemble / "config.pbtxt").read_text()
        swapped = config.replace(r"[\"clean\", \"dirty\"]", r"[\"dirty\", \"clean\"]")
        assert swapped != config
        shutil.copytree(ensemble / str(version), ensemble / str(version + 1))
        (ensemble / "config.pbtxt").write_text(swapped.replace(f"versions: {version}", f"versions: {version + 1}"))
        mine.load("car_analyzer")
        after = [analyzer.analyze(sample_photos[0]).cleanliness for analyzer in (grpc, http)]
    for old, new in zip(before, after, strict=True):
        assert new.logits == old.logits
        assert {old.label, new.label} == {"clean", "dirty"}
        assert list(new.probabilities) == ["dirty", "clean"]
