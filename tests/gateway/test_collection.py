"""What the collection keeps of the photos and of what people say about them, and that it never stands in the way."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import httpx
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from car_analyzer import Analysis, ConfigurationError, Head
from car_analyzer_export.checking.labelled import find_labelled
from car_analyzer_gateway import _errors
from car_analyzer_gateway._app import make_app
from car_analyzer_gateway._cli import main
from car_analyzer_gateway._collection import Collection
from car_analyzer_gateway._collection.index import Index, read_listing
from car_analyzer_gateway._collection.keeper import DAY_S, LIST_EVERY_S, RETRY_S
from car_analyzer_gateway._collection.names import Name, parse
from car_analyzer_gateway._collection.storage import Bucket, LocalFolder
from car_analyzer_gateway._errors import GatewayError
from car_analyzer_gateway._observers import AnsweredPhoto
from car_analyzer_gateway._settings import Settings, read_settings
from tests.conftest import PATIENCE_S, until

from .test_strip import drawn, open_photo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import SimpleNamespace

    from .conftest import Gateway

LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}
NOON = 1_795_780_800.0  # 2026-11-27 12:00 UTC


def analysis(condition: str = "intact", cleanliness: str = "clean") -> Analysis:
    heads = {"cleanliness": (cleanliness, ("clean", "dirty")), "condition": (condition, ("intact", "damaged"))}
    return Analysis(
        {name: Head(label, 0.9, dict.fromkeys(labels, 0.5), (0.0, 0.0)) for name, (label, labels) in heads.items()},
        12.3,
        "7",
        "0123456789abcdef",
    )


def small_photo(color: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color % 256, color // 256 % 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class Trial:
    """A collection whose jobs are run by the test, with a clock that only the test advances."""

    def __init__(self, folder: Any, *, chance: Callable[[], float] = lambda: 1.0, **settings: Any) -> None:
        self.now = NOON
        self.folder = folder
        self.registry = CollectorRegistry()
        self.collection = Collection(
            Settings(collect=str(folder), **{f"collect_{name}": value for name, value in settings.items()}),
            self.registry,
            clock=lambda: self.now,
            chance=chance,
        )
        self.keeper = self.collection._keeper
        self.keeper.start()

    def work(self) -> None:
        """Do the jobs that wait."""
        writer = self.collection._writer
        while writer._jobs:
            job, size = writer._jobs.popleft()
            writer._bytes -= size
            job()

    def see(self, request_id: str, photo: bytes | None = None, condition: str = "intact") -> AnsweredPhoto:
        answered = AnsweredPhoto(request_id, drawn("JPEG", 6) if photo is None else photo, analysis(condition))
        self.collection.see(answered)
        self.work()
        return answered

    def label(self, request_id: str, **labels: Any) -> None:
        photo = self.collection._recent.get(request_id) or self.keeper.read(request_id)
        assert photo is not None
        self.collection.label(photo, labels)
        self.work()

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"car_analyzer_{name}", labels) or 0.0

    def photos(self) -> list[str]:
        """The photos in the folder; all numbers have to agree."""
        sizes = self.keeper._storage.sizes()
        found = sorted(path for path in sizes if not path.endswith(".json"))
        assert len(found) == len(self.keeper.index) == self.count("collection_photos")
        assert sum(sizes.values()) == self.keeper.index.bytes == self.count("collection_bytes")
        return found

    def reasons(self) -> Counter[str]:
        parsed = [parse(path.rpartition("/")[2]) for path in self.photos()]
        return Counter(each[0].reason for each in parsed if each)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Where to collect: a folder, or storage of fsspec."""
    if request.param == "folder":
        yield tmp_path / "a" / "b"
    else:
        yield "memory://cars/photos"
        fsspec.filesystem("memory").rm("/", recursive=True)


def test_only_what_may_help_is_kept(place: Any) -> None:
    chances = iter([0.5, 0.009, 0.01])
    trial = Trial(place, chance=lambda: next(chances))
    trial.see("a")
    trial.see("b")
    trial.see("c")
    trial.see("d", condition="unsure")
    trial.collection.keep(trial.see("e", condition="unsure"), "drift")
    trial.work()
    assert [path.rpartition("/")[0] for path in trial.photos()] == [
        f"{r}/2026-11-27" for r in ("drift", "share", "unsure")
    ]
    assert trial.reasons() == {"share": 1, "unsure": 1, "drift": 1}
    assert trial.count("collected_photos_total", reason="drift") == 1


def test_a_record_has_the_answer_and_the_photo_no_metadata(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.see("order/7:2", condition="unsure")
    (photo,) = tmp_path.rglob("*.jpg")
    assert photo.name.endswith("-unsure-order,7~2.jpg")
    assert open_photo(photo.read_bytes()).getexif() == {0x0112: 6}
    assert b"SECRET" not in photo.read_bytes()
    assert json.loads(photo.with_suffix(".json").read_text()) == {
        "time": "2026-11-27T12:00:00.000+00:00",
        "requestId": "order/7:2",
        "reason": "unsure",
        "answer": analysis("unsure").to_dict(with_model=True),
        "probabilities": {head: dict.fromkeys(labels, 0.5) for head, labels in LABELS.items()},
        "feedback": None,
    }
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}


def test_all_unsure_photos_are_kept_and_no_more_than_the_quotas(tmp_path: Path) -> None:
    """At no moment is there more than the quotas allow, in the folder itself."""
    chance = random.Random(3)
    trial = Trial(tmp_path, chance=chance.random, photos=100, bytes=100_000, share=0.1, recent_bytes="1MB")
    storage, most = trial.keeper._storage, [0, 0]
    write, delete = storage.write, storage.delete
    there: dict[str, int] = {}

    def writing(path: str, data: bytes) -> None:
        there[path] = len(data)
        most[0] = max(most[0], sum(not path.endswith(".json") for path in there))
        most[1] = max(most[1], sum(there.values()))
        write(path, data)

    def deleting(path: str) -> None:
        delete(path)
        there.pop(path, None)

    storage.write, storage.delete = writing, deleting  # type: ignore[method-assign]
    unsure = set(chance.sample(range(2000), 60))
    photos = [small_photo(color) for color in range(50)]
    for number in range(2000):
        trial.now += 1
        trial.see(str(number), photos[number % 50], "unsure" if number in unsure else "intact")
    assert trial.reasons() == {"unsure": 60, "share": 40}
    assert most[0] == 100
    assert 0 < most[1] <= 100_000
    assert trial.count("collection_dropped_total", cause="quota") > 50


def test_the_least_important_one_gives_way(place: Any) -> None:
    trial = Trial(place, photos=4, chance=lambda: 0.0)
    for number in range(6):
        trial.now += 1
        trial.see(f"s{number}")
    assert {path.rpartition("-")[2] for path in trial.photos()} == {"s0.jpg", "s1.jpg", "s2.jpg", "s3.jpg"}
    assert trial.count("collection_dropped_total", cause="quota") == 2
    trial.see("u", condition="unsure")
    trial.label("s5", condition="intact")
    trial.collection.keep(trial.see("d"), "drift")
    trial.work()
    assert trial.reasons() == {"right": 1, "drift": 1, "unsure": 1, "share": 1}
    assert any(path.endswith("share-s3.jpg") for path in trial.photos())
    for number in range(4):
        trial.label(f"s{number}", condition="damaged")
    assert trial.reasons() == {"wrong": 4}
    trial.label("u", condition="damaged")
    trial.label("d", condition="intact")
    trial.see("u2", condition="unsure")
    assert trial.reasons() == {"wrong": 4}


def test_a_photo_that_cannot_fit_deletes_nothing(tmp_path: Path) -> None:
    trial = Trial(tmp_path, bytes=3000, chance=lambda: 0.0)
    trial.see("a", small_photo())
    trial.see("b", drawn("PNG", 1), "unsure")
    assert trial.reasons() == {"share": 1}
    assert trial.count("collection_dropped_total", cause="quota") == 1


def test_feedback_makes_folders_that_check_reads(place: Any, tmp_path: Path) -> None:
    trial = Trial(place)
    trial.see("a")
    trial.see("dirty-damaged-1", condition="unsure")
    trial.see("c", condition="unsure")
    trial.label("a", condition="damaged", cleanliness="clean")
    trial.label("c", condition="damaged")
    assert trial.reasons() == {"wrong": 2, "unsure": 1}
    assert [path.rpartition("/")[0] for path in trial.photos()] == [
        "labelled/condition/damaged",
        "labelled/condition/damaged/cleanliness/clean",
        "unsure/2026-11-27",
    ]
    trial.collection.keep(AnsweredPhoto("a", trial.collection._recent.get("a").data, analysis()), "drift")  # type: ignore[union-attr, arg-type]
    trial.label("a", condition="intact")  # they changed their mind
    trial.label("a", condition="intact")
    assert trial.reasons() == {"wrong": 1, "right": 1, "unsure": 1}
    assert trial.count("collected_photos_total", reason="right") == 1
    assert trial.count("feedback_total", head="condition", answer="intact", label="damaged") == 1
    assert trial.count("feedback_total", head="condition", answer="intact", label="intact") == 2
    copy = tmp_path / "copy"
    for path in trial.keeper._storage.sizes():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(trial.keeper._storage.read(path))
    truth = {photo.name.rpartition("-")[2]: photo.truth for photo in find_labelled(copy, LABELS).photos}
    assert truth == {"a.jpg": {"condition": "intact"}, "c.jpg": {"condition": "damaged"}}


def test_photos_that_are_kept_can_be_labelled_after_a_restart(place: Any) -> None:
    Trial(place).see("a", condition="unsure")
    trial = Trial(place)
    assert trial.reasons() == {"unsure": 1}
    assert trial.keeper.read("b") is None
    trial.label("a", condition="damaged")
    assert trial.reasons() == {"wrong": 1}
    assert Trial(place).reasons() == {"wrong": 1}


def test_strange_labels_match_what_check_reads(tmp_path: Path) -> None:
    names = ("N/A", "..", "++", "", "not so, clean", "größer 5 %")
    labels = {"state": names, "marks": ("dent", "scratch", "+")}
    trial = Trial(tmp_path)
    for number, label in enumerate(names):
        marks = [(), ("dent", "scratch"), ("+",), ("dent",), ("scratch", "+"), ("dent", "scratch", "+")][number]
        answer = Analysis(
            {
                "state": Head("N/A", 0.9, dict.fromkeys(names, 0.1), (0.0,)),
                "marks": Head("dent", 0.9, dict.fromkeys(labels["marks"], 0.1), (0.0,), ("dent",)),
            },
            1.0,
        )
        trial.collection.see(AnsweredPhoto(f"n{number}", small_photo(), answer))
        trial.label(f"n{number}", state=label, marks=list(marks))
    assert trial.reasons() == {"wrong": 6}
    assert {path.name for path in tmp_path.iterdir()} == {"labelled"}
    found = {
        photo.name.rpartition("-")[2]: photo.truth
        for photo in find_labelled(tmp_path, labels, frozenset({"marks"})).photos
    }
    assert [found[f"n{number}.png"]["state"] for number in range(6)] == list(names)
    assert [found[f"n{number}.png"]["marks"] for number in range(6)] == [
        "",
        "dent, scratch",
        "+",
        "dent",
        "scratch, +",
        "dent, scratch, +",
    ]
    assert trial.count("feedback_total", head="marks", answer="none", label="scratch") == 3
    assert trial.count("feedback_total", head="marks", answer="dent", label="none") == 3


def test_old_photos_are_deleted(place: Any) -> None:
    trial = Trial(place, days=2)
    trial.see("a", condition="unsure")
    trial.now += 1.5 * DAY_S
    trial.see("b", condition="unsure")
    assert len(trial.photos()) == 2
    trial.now += DAY_S
    trial.keeper.refresh()
    assert [path.rpartition("-")[2] for path in trial.photos()] == ["b.jpg"]
    assert not list(Path(str(place)).glob("unsure/2026-11-27"))


def test_what_a_killed_gateway_has_left(tmp_path: Path) -> None:
    first = Trial(tmp_path, photos=2, chance=lambda: 0.0)
    first.see("a")
    first.see("b")
    a, b = (tmp_path / path for path in first.photos())
    a.with_suffix(".json").unlink()  # killed before it was written
    b.unlink()  # killed while it was deleted
    (a.parent / f".{a.name}.tmp").write_bytes(b"half a photo")
    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    (tmp_path / "car.jpg").write_bytes(small_photo())
    second = Trial(tmp_path, photos=2, chance=lambda: 0.0)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {a, mine, tmp_path / "car.jpg"}
    assert len(second.keeper.index) == 1
    second.see("c")
    second.see("d")
    assert second.count("collection_dropped_total", cause="quota") == 1
    assert second.keeper.read("a") is None


def test_gateways_that_share_a_folder(place: Any) -> None:
    one, other = Trial(place, photos=3, chance=lambda: 0.0), Trial(place, photos=3, chance=lambda: 0.0)
    one.see("a")
    other.see("b")
    one.see("a")
    assert len(one.keeper.index) == 2
    one.now += LIST_EVERY_S
    one.see("c")
    assert len(one.photos()) == 3
    one.label("b", condition="damaged")  # the photo of the other one
    other.label("b", condition="intact")  # which has not noticed
    one.now += LIST_EVERY_S
    one.keeper.refresh()
    sizes = one.keeper._storage.sizes()
    assert (len(one.keeper.index), one.keeper.index.bytes) == (3, sum(sizes.values()))
    assert len(sizes) == 8  # it has two names
    one.label("b", condition="damaged", cleanliness="dirty")
    assert one.reasons() == {"share": 2, "wrong": 1}
    assert one.count("collection_dropped_total", cause="error") == 0


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


def test_a_photo_that_cannot_be_stripped_is_not_kept(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.see("a", drawn("TIFF", 1), "unsure")
    trial.see("b", drawn("JPEG", 1)[:-20], "unsure")
    assert trial.count("collection_dropped_total", cause="format") == 2
    assert trial.photos() == []


def test_recent_photos_stay_within_their_bytes(tmp_path: Path) -> None:
    trial = Trial(tmp_path, recent_bytes=100_000)
    for number in range(1000):
        trial.see(f"a{number}", b"x" * 6000)
        assert trial.collection._recent.bytes <= 100_000
    assert [bool(trial.collection._recent.get(f"a{number}")) for number in (0, 990, 991, 999)] == [
        False,
        False,
        True,
        True,
    ]
    trial.see("b", b"x" * 200_000)
    assert trial.collection._recent.bytes == 0


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


def test_an_index_of_any_names() -> None:
    name = Name(int(NOON), "0123abcd", "a-b/c:1", "share")
    assert parse(name.file("jpg")) == (name, "jpg")
    assert parse("car.jpg") is None
    assert parse("20269927T120000Z-0123abcd-share-a.jpg") is None
    entries, orphans = read_listing({f"x/{name.file('jpg')}": 5, f"x/{name.file('json')}": 3, "x/y.jpg": 9})
    assert (entries[0].size, orphans) == (8, [])
    assert Index(1, 10, entries).room(3, "share", None) is None
    assert Index(1, 10, entries).room(3, "unsure", None) == entries


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("collect_share", "2", "--collect-share (CAR_ANALYZER_COLLECT_SHARE): Input should be less than or equal to 1"),
        ("collect_share", "many%", "--collect-share"),
        ("collect_bytes", "5 potatoes", "--collect-bytes"),
        ("collect_days", "0", "--collect-days"),
        ("collect_photos", "0", "--collect-photos"),
    ],
)
def test_impossible_settings(flag: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings({flag: value})
    assert message in str(caught.value)


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings({"collect_share": "1%"}).collect_share == 0.01
    assert read_settings({"collect_bytes": "5GB"}).collect_bytes == 5_000_000_000
    monkeypatch.setenv("CAR_ANALYZER_COLECT", "x")
    with pytest.raises(ConfigurationError, match="did you mean CAR_ANALYZER_COLLECT"):
        read_settings({})


def test_a_place_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert main(["--port", "0", "--collect", str(tmp_path / "file" / "folder")]) == 2
    assert "the folder cannot be written: Not a directory" in capsys.readouterr().err
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


@pytest.fixture
async def client(tmp_path: Path) -> Any:
    """The application without a Triton, with two photos that were answered."""
    app = make_app(Settings(collect=str(tmp_path / "kept"), token="secret", cors_origins="https://app.example"))
    (collection,) = app.state.gateway.observers
    collection.see(AnsweredPhoto("a", drawn("JPEG", 1), analysis()))
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": "Bearer secret"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


def feedback(request_id: Any = "a", **labels: Any) -> dict[str, Any]:
    return {"request_id": request_id, "labels": labels}


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"", 400, "feedback.invalid", "is not JSON"),
        (b"[" * 8000, 400, "feedback.invalid", "is not JSON"),
        (b"\xff", 400, "feedback.invalid", "is not JSON"),
        (b"[1]", 400, "feedback.invalid", "is not a JSON object"),
        (b'{"labels": {"condition": "intact"}}', 400, "feedback.invalid", "request_id is missing"),
        (b'{"request_id": 7, "labels": {"condition": "intact"}}', 400, "feedback.invalid", "not a text"),
        (b'{"request_id": "a", "labels": {}}', 400, "feedback.invalid", "labels is missing"),
        (feedback(brand="vw"), 400, "feedback.invalid", "no head 'brand'; this model has cleanliness, condition"),
        (
            feedback(condition="wet"),
            400,
            "feedback.invalid",
            '"wet" is not a label of condition; its labels are intact, damaged.',
        ),
        (feedback(condition="unsure"), 400, "feedback.invalid", "is not a label"),
        (feedback(condition=["intact"]), 400, "feedback.invalid", "is not a label"),
        (feedback(condition=None), 400, "feedback.invalid", "null is not a label"),
        (feedback("b", condition="intact"), 404, "feedback.unknown_photo", "unknown, or was answered too long ago"),
        (b" " * 8193, 413, "request.too_large", "at most 8,192 bytes"),
    ],
)
async def test_feedback_that_is_rejected(
    client: httpx.AsyncClient, body: Any, status: int, code: str, message: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post("/feedback", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert message in response.json()["error"]


async def test_who_may_send_feedback(client: httpx.AsyncClient) -> None:
    assert (await client.post("/feedback", json=feedback(condition="damaged"))).status_code == 204
    plain = await client.post("/feedback", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()["code"]) == (415, "request.media_type")
    nobody = await client.post("/feedback", json=feedback(), headers={"Authorization": "Bearer wrong"})
    assert nobody.status_code == 401
    assert (await client.get("/feedback")).status_code == 405
    origin = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    preflight = await client.options("/feedback", headers=origin)
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    metrics = (await client.get("/metrics")).text
    assert 'car_analyzer_feedback_total{answer="intact",head="condition",label="damaged"} 1.0' in metrics
    assert {_errors.UNKNOWN_PHOTO, _errors.INVALID_FEEDBACK} == {"feedback.unknown_photo", "feedback.invalid"}


def test_the_whole_way(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], sample_photos: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    gateway = start_gateway(server.grpc_url, "--collect", str(folder), "--collect-share", "100%")
    assert gateway.health(200)["feedback"] is True
    paths = sample_photos[:4]
    answers = gateway.analyze(*(path.read_bytes() for path in paths), headers={"X-Request-ID": "cars"}).json()
    until(lambda: gateway.metric("car_analyzer_collection_photos") == 4)
    wrong = {"intact": "damaged", "damaged": "intact"}[answers[1]["condition"]]
    for body in (
        feedback("cars", cleanliness=answers[0]["cleanliness"], condition=answers[0]["condition"]),
        feedback("cars-2", condition=wrong),
    ):
        assert gateway.http.post("/feedback", json=body).status_code == 204
    until(lambda: gateway.metric("car_analyzer_collected_photos_total", reason="wrong") == 1)
    assert gateway.metric("car_analyzer_collected_photos_total", reason="right") == 1
    assert gateway.metric("car_analyzer_collection_photos") == 4
    assert gateway.metric("car_analyzer_collection_dropped_total") == 0
    truth = sorted((photo.truth for photo in find_labelled(folder, LABELS).photos), key=len)
    assert truth == [{"condition": wrong}, {head: answers[0][head] for head in LABELS}]
    kept = next(folder.rglob("*-right-cars.jpg"))
    again = gateway.analyze(kept.read_bytes()).json()
    assert {name: again[name] for name in again if name != "processingTime"} == {
        name: answers[0][name] for name in again if name != "processingTime"
    }


def test_without_the_setting_there_is_no_feedback(gateway: Gateway) -> None:
    assert "feedback" not in gateway.health(200)
    assert gateway.http.post("/feedback", json=feedback(condition="intact")).status_code == 404
    assert "car_analyzer_collect" not in gateway.http.get("/metrics").text
