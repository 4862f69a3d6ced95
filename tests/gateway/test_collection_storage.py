"""Storage that fails, hangs or cannot be used costs photos of the collection, never an answer."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from car_analyzer import ConfigurationError
from car_analyzer_gateway._cli import main
from car_analyzer_gateway._collection import Collection
from car_analyzer_gateway._collection.keeper import RETRY_S
from car_analyzer_gateway._collection.storage import Bucket, LocalFolder
from car_analyzer_gateway._errors import GatewayError
from car_analyzer_gateway._observers import AnsweredPhoto
from car_analyzer_gateway._settings import Settings
from tests.conftest import PATIENCE_S

from .collecting import Trial, analysis, small_photo
from .test_strip import drawn


class FailingStorage:
    """Storage whose calls fail when the test wants."""

    def __init__(self, storage: Any, error: Exception) -> None:
        self._storage = storage
        self._error = error
        self.fails: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if name in self.fails:
                raise self._error
            return getattr(self._storage, name)(*arguments)

        return call


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError(30, "Read-only"), TimeoutError("slow")]
)
def test_trouble_costs_photos_and_one_line_in_the_log(
    error: Exception, place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(place, chance=lambda: 0.0)
    storage = trial.keeper._storage = FailingStorage(trial.keeper._storage, error)  # type: ignore[assignment]
    trial.see("a")
    storage.fails = {"write"}
    for number in range(50):
        trial.see(f"b{number}")
    assert trial.count("collection_dropped_total", cause="error") == 50
    assert [record.message for record in caplog.records] == ["photos are not collected"]
    storage.fails = set()
    trial.see("c")
    assert trial.reasons() == {"share": 2}
    storage.fails = {"write", "delete", "sizes"}
    trial.see("d")
    storage.fails = {"sizes"}
    trial.see("e")  # what is there is not known: nothing may be written
    assert trial.count("collection_dropped_total", cause="error") == 52
    trial.now += RETRY_S
    trial.see("f")
    storage.fails = set()
    trial.now += RETRY_S
    trial.see("g")
    assert trial.reasons() == {"share": 3}


def test_a_bucket_that_does_not_answer_at_start(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    trial = Trial(place, chance=lambda: 0.0)
    storage = trial.keeper._storage = FailingStorage(trial.keeper._storage, ConnectionError("nobody"))  # type: ignore[assignment]
    storage.fails = {"sizes", "write", "delete", "delete_temporary"}
    trial.keeper._listed, trial.keeper._list_at = False, 0.0
    trial.keeper.start()
    trial.see("a")
    assert [record.fields["trouble"] for record in caplog.records] == ["list: ConnectionError"]  # type: ignore[attr-defined]
    storage.fails = set()
    trial.now += RETRY_S
    trial.see("b")
    assert trial.reasons() == {"share": 1}


async def test_storage_that_hangs_costs_neither_time_nor_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("car_analyzer_gateway._collection._collection.PATIENCE_S", 0.05)
    monkeypatch.setattr("car_analyzer_gateway._collection._collection.STUCK_S", 0.0)
    registry, release, hangs = CollectorRegistry(), threading.Event(), threading.Event()
    collection = Collection(Settings(collect=str(tmp_path)), registry)
    collection._keeper._storage.delete_temporary = lambda: (hangs.set(), release.wait())  # type: ignore[method-assign, assignment]
    await collection.open()
    await asyncio.to_thread(hangs.wait)
    photo = drawn("JPEG", 1) + bytes(1_000_000)
    for number in range(200):
        collection.see(AnsweredPhoto(f"a{number}", photo, analysis("unsure")))
    held = collection._writer._bytes
    assert 60_000_000 < held <= 64_000_000
    assert registry.get_sample_value("car_analyzer_collection_dropped_total", {"cause": "queue"}) == 200 - len(
        collection._writer._jobs
    )
    assert [record.fields["trouble"] for record in caplog.records] == ["stuck", "queue"]  # type: ignore[attr-defined]
    with pytest.raises(GatewayError, match="busy"):
        collection.label(collection._recent.get("a199"), {"condition": "intact"})  # type: ignore[arg-type]
    await collection.close()  # returns although the thread still hangs
    assert collection._writer._thread.is_alive()
    assert caplog.records[-1].fields["trouble"] == "stopped"  # type: ignore[attr-defined]
    release.set()
    await asyncio.to_thread(collection._writer._thread.join)
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


async def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    collection = Collection(Settings(collect=str(tmp_path)), CollectorRegistry())
    await collection.open()
    for number in range(30):
        collection.see(AnsweredPhoto(f"a{number}", small_photo(number), analysis("unsure")))
    await asyncio.to_thread(collection._writer.close, PATIENCE_S)
    assert await asyncio.to_thread(lambda: len(list(tmp_path.rglob("*.png")))) == 30


def test_a_place_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert main(["--port", "0", "--collect", str(tmp_path / "file" / "folder")]) == 2
    assert "the folder cannot be written: Not a directory" in capsys.readouterr().err
    for place, message in (("~nobody-of-this-name/cars", "no such user"), ("file://", "the folder is missing")):
        assert main(["--port", "0", "--collect", place]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="s4"):
        Bucket("s4://cars")
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "s3fs", None)
        with pytest.raises(ConfigurationError, match="car-analyzer\\[collect\\].*s3fs"):
            Bucket("s3://cars")
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "fsspec", None)
        with pytest.raises(ConfigurationError, match="car-analyzer\\[collect\\]"):
            Bucket("s3://cars")
        LocalFolder(tmp_path / "needs no library")


def test_a_folder_of_somebody_else_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, scandir = Trial(tmp_path, chance=lambda: 0.0), os.scandir
    trial.see("a")
    closed = tmp_path / "lost+found"
    closed.mkdir()

    def reading(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", reading)  # root can read every folder
    assert len(trial.photos()) == 1
    closed = tmp_path / "share"
    with pytest.raises(PermissionError):
        trial.photos()


def test_a_folder_that_others_remove_meanwhile(tmp_path: Path) -> None:
    storage, path = LocalFolder(tmp_path), "unsure/2026-11-27/a.jpg"
    storage.write(path, b"1")
    storage.write(path, b"22")
    assert storage.sizes() == {path: 2}
    storage.delete(path)
    storage.delete(path)
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)
    assert storage.sizes() == {}
    real, calls = os.open, []

    def racing(*arguments: Any, **options: Any) -> int:
        calls.append(arguments)
        if len(calls) == 1:
            raise FileNotFoundError
        return real(*arguments, **options)

    os.open = racing  # type: ignore[assignment]
    try:
        storage.write(path, b"333")
    finally:
        os.open = real
    assert storage.read(path) == b"333"
