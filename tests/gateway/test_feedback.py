"""What people say about an answer, and the folders that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from car_analyzer import Analysis, Head
from car_analyzer_export.checking.labelled import find_labelled
from car_analyzer_gateway import _errors
from car_analyzer_gateway._app import make_app
from car_analyzer_gateway._observers import AnsweredPhoto
from car_analyzer_gateway._settings import Settings
from tests.conftest import until

from .test_strip import drawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

    from .conftest import Gateway
from .collecting import LABELS, Trial, analysis, small_photo


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


def test_a_photo_is_kept_once_however_late_it_is_seen_again(place: Any) -> None:
    trial = Trial(place, recent_bytes=10_000)
    first = trial.see("a", condition="unsure")
    trial.label("a", condition="damaged")
    trial.see("b")
    assert trial.collection._recent.get("a") is None
    trial.now += 100
    trial.collection.keep(first, "drift")
    trial.see("a", first.photo, condition="unsure")  # the page shows where its answer comes from
    assert [path.rpartition("/")[0] for path in trial.photos()] == ["labelled/condition/damaged"]
    trial.label("a", condition="intact")
    assert [path.rpartition("/")[0] for path in trial.photos()] == ["labelled/condition/intact"]


def test_feedback_is_about_the_last_answer_with_an_id(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    before = trial.see("a")
    last = trial.see("a", condition="damaged")
    trial.collection.keep(before, "drift")
    trial.work()
    trial.label("a", condition="damaged")
    assert trial.reasons() == {"drift": 1, "right": 1}
    trial.see("a", last.photo, condition="intact")  # by a newer model
    trial.label("a", condition="damaged")
    assert trial.reasons() == {"drift": 1, "wrong": 1}


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
    assert (await client.put("/feedback")).status_code == 405
    origin = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    preflight = await client.options("/feedback", headers=origin)
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    metrics = (await client.get("/metrics")).text
    assert 'car_analyzer_feedback_total{answer="intact",head="condition",label="damaged"} 1.0' in metrics
    assert {_errors.UNKNOWN_PHOTO, _errors.INVALID_FEEDBACK} == {"feedback.unknown_photo", "feedback.invalid"}


async def test_what_feedback_can_say(client: httpx.AsyncClient) -> None:
    choices = (await client.get("/feedback", params={"request_id": "a"})).json()
    assert choices["heads"]["condition"] == {"label": "intact", "labels": ["intact", "damaged"]}
    assert choices["heads"].keys() == LABELS.keys()
    unknown = await client.get("/feedback", params={"request_id": "b"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "feedback.unknown_photo")
    assert (await client.get("/feedback")).json()["error"].startswith("The parameter request_id is missing")
    nobody = await client.get("/feedback", params={"request_id": "a"}, headers={"Authorization": "Bearer wrong"})
    assert nobody.status_code == 401


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
