"""What the collection keeps of the photos, and for how long."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from car_analyzer import ConfigurationError
from car_analyzer_gateway._collection.index import Index, read_listing
from car_analyzer_gateway._collection.keeper import DAY_S, LIST_EVERY_S
from car_analyzer_gateway._collection.names import Name, parse
from car_analyzer_gateway._settings import read_settings

from .collecting import LABELS, NOON, Trial, analysis, small_photo
from .test_strip import drawn, open_photo


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
    mine, half = tmp_path / "notes.txt", a.parent / ".notes.tmp"
    for file in (mine, half):
        file.write_text("mine")
    (tmp_path / "car.jpg").write_bytes(small_photo())
    second = Trial(tmp_path, photos=2, chance=lambda: 0.0)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {a, mine, half, tmp_path / "car.jpg"}
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


def test_a_photo_that_another_gateway_has_labelled_is_found(place: Any) -> None:
    one = Trial(place)
    one.see("a", condition="unsure")
    other = Trial(place)
    one.label("a", condition="damaged")
    other.label("a", condition="intact")
    assert [path.split("/")[2] for path in other.photos()] == ["intact"]


@pytest.mark.parametrize("label", ["damaged", "intact"])
def test_the_next_label_replaces_those_from_two_gateways(place: Any, label: str) -> None:
    one, other = Trial(place), Trial(place)
    photo = one.see("a").photo
    other.see("a", photo)
    one.label("a", condition="damaged")
    other.label("a", condition="intact")
    one.now += LIST_EVERY_S
    one.keeper.refresh()
    assert len(one.keeper._storage.sizes()) == 4
    one.label("a", condition=label)
    assert [path.split("/")[2] for path in one.photos()] == [label]


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
        ("collect", "", "--collect (CAR_ANALYZER_COLLECT): String should have at least 1 character"),
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
