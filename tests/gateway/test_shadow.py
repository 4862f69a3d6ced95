"""A candidate gets photos after they were answered, and nothing that it does reaches a caller. Without Triton."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount

from car_analyzer import Analysis, ConfigurationError, Head, OverloadedError, PhotoError
from car_analyzer_gateway import _comparison, _shadow
from car_analyzer_gateway._app import make_app
from car_analyzer_gateway._observers import AnsweredPhoto
from car_analyzer_gateway._settings import Settings, read_settings
from car_analyzer_gateway._triton_process import TritonProcess

KEY = "an-administrators-key"
ORDER = {"model": "candidate", "exportId": "new", "servedExportId": "old", "share": 1, "photos": 1000}


def analysis(clean: float, export_id: str = "old", milliseconds: float = 10.0) -> Analysis:
    label = "clean" if clean > 0.5 else "dirty"
    head = Head(label, max(clean, 1 - clean), {"clean": clean, "dirty": 1 - clean}, (clean, -clean))
    return Analysis({"cleanliness": head}, milliseconds, "1", export_id)


class Candidate:
    """A client whose answers a test chooses, and holds back."""

    def __init__(self, export_id: str) -> None:
        self.export_id = export_id
        self.ready = True
        self.answer: Any = analysis(0.9)
        self.held = asyncio.Event()
        self.held.set()
        self.in_flight = self.most_in_flight = 0
        self.closed = asyncio.Event()

    async def health(self, _timeout: float) -> Any:
        return SimpleNamespace(ready=self.ready, export_id=self.export_id)

    async def analyze(self, _photo: bytes, request_id: str) -> Analysis:
        assert request_id.endswith("-shadow")
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.held.wait()
        finally:
            self.in_flight -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Analysis = self.answer
        return answer

    async def close(self) -> None:
        self.closed.set()


class Site:
    """The application, and the candidate that it finds."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        (folder / "key").write_text(KEY + "\n")
        self.app = make_app(Settings(admin_key_file=folder / "key", **settings))
        (self.shadow,) = self.app.state.gateway.observers
        self.served, self.candidate = Candidate("old"), Candidate("new")
        self.shadow._served = self.served
        self.shadow.connect = lambda _model: self.candidate
        headers = {"Authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(app=self.app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers)

    async def start(self, **values: Any) -> httpx.Response:
        return await self.http.put("/shadow", json={**ORDER, **values})

    async def state(self, query: str = "") -> Any:
        return (await self.http.get(f"/shadow{query}")).json()

    def see(self, clean: float = 0.9, photo: bytes = b"photo", export_id: str = "old") -> None:
        self.shadow.see(AnsweredPhoto("id", photo, analysis(clean, export_id)))

    async def see_all(self, count: int, clean: float = 0.9, photo: bytes = b"photo") -> None:
        """One photo after the other, each compared before the next one."""
        for _ in range(count):
            self.see(clean, photo)
            await asyncio.gather(*self.shadow.run._tasks)

    async def outcomes(self) -> dict[str, float]:
        families = text_string_to_metric_families((await self.http.get("/metrics")).text)
        return {
            sample.labels["outcome"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "car_analyzer_shadow_photos_total"
        }


@pytest.fixture
async def make_site(tmp_path: Path) -> AsyncIterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**settings: Any) -> Site:
        sites.append(Site(tmp_path, **settings))
        return sites[-1]

    yield make
    for site in sites:
        await site.app.state.gateway.close()
        await site.http.aclose()


async def test_without_a_key_there_is_no_such_path() -> None:
    transport = httpx.ASGITransport(app=make_app(Settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        assert (await http.get("/shadow", headers={"Authorization": f"Bearer {KEY}"})).status_code == 404


@pytest.mark.parametrize("protect", ["analyze", "all"])
async def test_only_the_administrators_key_opens_it(make_site: Callable[..., Site], protect: str) -> None:
    site = make_site(token="the-callers-token", protect=protect)
    for authorization in ("", "Bearer the-callers-token", f"Basic {KEY}", f"Bearer {KEY}x"):
        for method, path in itertools.product(("GET", "PUT", "DELETE"), ("/shadow", "/shadow%0A", "/shadow/photo%0A")):
            answer = await site.http.request(method, path, headers={"Authorization": authorization})
            assert (answer.status_code, answer.json()["code"]) == (401, "request.unauthorized")
    assert await site.state() == {"running": False, "servedExportId": "old"}
    # Nor does that key open what callers need their token for.
    for path in ("/analyze", "/analyze%0A"):
        assert (await site.http.post(path)).status_code == 401
    mounted = httpx.ASGITransport(app=Starlette(routes=[Mount("/cars", site.app)]))
    async with httpx.AsyncClient(transport=mounted, base_url="http://gateway/cars") as http:
        assert [(await http.get("/shadow")).status_code, (await http.post("/analyze")).status_code] == [401, 401]
    assert (await site.http.get("/shadow/")).status_code in (401, 404)


@pytest.mark.parametrize("key", [None, "", "too-short", "with a space in the key"])
def test_a_bad_key_file_is_refused(tmp_path: Path, key: str | None) -> None:
    if key is not None:
        (tmp_path / "key").write_text(key)
    with pytest.raises(ConfigurationError, match="key"):
        make_app(Settings(admin_key_file=tmp_path / "key"))


def test_tritons_own_variable_is_no_misspelt_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAR_ANALYZER_ADMIN_KEY", KEY)
    assert read_settings({}).read_admin_key() is None


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({"share": 0}, 400, "share"),
        ({"share": 1.5}, 400, "share"),
        ({"photos": "many"}, 400, "photos"),
        ({"model": ""}, 400, "model"),
        ({"sahre": 1}, 400, "sahre"),
        ({"model": "x" * 20_000}, 413, "too large"),
        ({"servedExportId": "another"}, 409, "serves export old, not another"),
        ({"exportId": "another"}, 409, "no model candidate of export another"),
    ],
)
async def test_what_cannot_be_compared_is_refused(
    make_site: Callable[..., Site], values: dict[str, Any], status: int, words: str
) -> None:
    site = make_site()
    answer = await site.start(**values)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert site.shadow.run is None
    assert site.candidate.closed.is_set() == (status == 409)


async def test_an_order_that_breaks_off_is_no_bug(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_message: Any) -> None:
        raise AssertionError

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": "PUT", "path": "/shadow", "query_string": b"", "headers": headers}
    await make_site().app(scope, receive, send)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_agreement_is_counted_by_head(make_site: Callable[..., Site]) -> None:
    site = make_site()
    assert (await site.start()).status_code == 201
    assert (await site.start()).status_code == 409  # one at a time
    site.candidate.answer = analysis(0.8, "new", milliseconds=30)
    await site.see_all(3)
    await site.see_all(1, clean=0.3, photo=b"a dirty car")
    site.candidate.answer = PhotoError("damaged")
    await site.see_all(2)
    site.candidate.answer = RuntimeError("a bug")
    await site.see_all(1)
    site.candidate.answer = OverloadedError("busy")
    await site.see_all(5)
    site.see(export_id="older")  # an answer of another version cannot be compared
    state = await site.state()
    assert state["counts"] == {"agreed": 3, "differed": 1, "failed": 3, "skipped": 5}
    assert state["errors"] == {"photo.invalid": 2, "service.failed": 1}
    head = state["heads"]["cleanliness"]
    assert (head["agreed"], head["compared"]) == (3, 4)
    assert sorted(head["confusion"]) == [["clean", "clean", 3], ["dirty", "clean", 1]]
    assert head["largestDifference"] == pytest.approx(0.5)
    assert head["meanDifference"] == pytest.approx((3 * 0.1 + 0.5) / 4)
    assert "differences" not in state
    full = await site.state("?detail=full")
    assert full["milliseconds"] == {"served": [10.0] * 4, "candidate": [30.0] * 4}
    (difference,) = full["differences"]
    assert difference["requestId"] == "id"
    assert difference["heads"]["cleanliness"] == {
        "served": {"label": "dirty", "confidence": 0.7},
        "candidate": {"label": "clean", "confidence": 0.8},
    }
    photo = await site.http.get("/shadow/photo", params={"number": difference["photo"]})
    assert photo.content == b"a dirty car"
    for number in ("1", "-1", "9" * 5000):
        assert (await site.http.get("/shadow/photo", params={"number": number})).status_code == 404
    assert await site.outcomes() == {"agreed": 3, "differed": 1, "failed": 3, "skipped": 5}
    assert (await site.http.delete("/shadow")).status_code == 204
    assert site.candidate.closed.is_set()
    assert await site.state() == {"running": False, "servedExportId": "old"}


def test_several_labels_agree_in_any_order() -> None:
    def marks(*labels: str) -> Head:
        return Head(", ".join(labels), 0.9, dict.fromkeys(labels, 0.9), (2.0,) * len(labels), labels)

    counts = _comparison.HeadCounts()
    assert counts.add(marks("dent", "scratch"), marks("scratch", "dent"))
    assert not counts.add(marks("dent", "scratch"), marks("scratch"))
    assert counts.confusion == {("dent, scratch", "dent, scratch"): 1, ("dent, scratch", "scratch"): 1}


async def test_a_slow_candidate_holds_few_photos(make_site: Callable[..., Site]) -> None:
    site = make_site()
    await site.start()
    site.candidate.held.clear()
    for _ in range(100):
        site.see()
    await asyncio.sleep(0)
    room = _shadow.MOST_IN_FLIGHT + _shadow.MOST_WAITING
    assert (await site.state())["counts"]["skipped"] == 100 - room
    assert site.candidate.most_in_flight == _shadow.MOST_IN_FLIGHT
    await site.http.delete("/shadow")  # does not wait for it
    assert site.candidate.in_flight == 0


async def test_large_photos_are_held_within_bounds(make_site: Callable[..., Site]) -> None:
    site = make_site()
    await site.start()
    site.candidate.held.clear()
    photo = bytes(_shadow.MOST_HELD_BYTES // 2)
    for _ in range(5):
        site.see(photo=photo)
    assert (await site.state())["counts"]["skipped"] == 3
    site.candidate.held.set()
    await asyncio.gather(*site.shadow.run._tasks)
    site.see(photo=bytes(_shadow.MOST_HELD_BYTES + 1))  # alone, any photo is compared
    await asyncio.gather(*site.shadow.run._tasks)
    assert (await site.state())["counts"]["agreed"] == 3


async def test_what_differs_is_kept_within_bounds(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_comparison, "MOST_DIFFERENCES", 4)
    monkeypatch.setattr(_comparison, "MOST_PHOTOS", 3)
    monkeypatch.setattr(_comparison, "MOST_PHOTO_BYTES", 25)
    site = make_site()
    await site.start()
    await site.see_all(6, clean=0.2, photo=bytes(10))
    full = await site.state("?detail=full")
    assert [one["photo"] for one in full["differences"]] == [0, 1, None, None]
    assert full["counts"]["differed"] == 6
    for number in range(_comparison.MOST_PAIRS + 10):
        counts = site.shadow.run.comparison._heads["cleanliness"]
        counts.add(Head(f"{number}", 1, {}, ()), Head("x", 1, {}, ()))
    assert len(counts.confusion) == _comparison.MOST_PAIRS + 1


async def test_it_ends_with_the_number_of_photos(make_site: Callable[..., Site]) -> None:
    site = make_site()
    await site.start(photos=3)
    await site.see_all(10)
    assert (await site.state())["counts"] == {"agreed": 3, "differed": 0, "failed": 0, "skipped": 0}


async def test_only_a_share_is_compared(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site()
    await site.start(share=0.1)
    numbers = iter([0.05, 0.15, 0.1, 0.0999])
    monkeypatch.setattr(_shadow.random, "random", lambda: next(numbers))
    await site.see_all(4)
    assert (await site.state())["counts"]["agreed"] == 2


async def test_it_ends_if_nobody_asks(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shadow, "LEASE_S", 0.01)
    site = make_site()
    await site.start()
    await site.candidate.closed.wait()
    assert site.shadow.run is None


def test_the_triton_of_the_gateway_gets_the_key(tmp_path: Path) -> None:
    assert f"--admin-key-file={tmp_path}" in TritonProcess("repository", {}, None, tmp_path)._arguments
    assert not any("key" in argument for argument in TritonProcess("repository", {}, None)._arguments)
