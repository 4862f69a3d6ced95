"""A comparison on real photos: options, gateways that cannot compare, and the outcome. Without Triton."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from car_analyzer_export.cli import publish
from car_analyzer_export.cli.shadow import Shadow
from car_analyzer_export.errors import PublishError
from car_analyzer_export.shadow import trial
from car_analyzer_export.shadow.gateway import Gateway
from car_analyzer_export.shadow.outcome import Outcome, merge
from car_analyzer_export.shadow.report import write_report
from car_analyzer_export.shadow.text import as_text
from car_analyzer_export.shadow.trial import ShadowTrial

KEY = "an-administrators-key"
IDLE = {"running": False, "servedExportId": "old"}


class FakeGateway(ThreadingHTTPServer):
    """Answers GET with what a test says, PUT with 201, and notes all requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.order: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeGateway

    def answer(self) -> None:
        self.server.requests.append((self.command, self.path))
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        status, body = (201, {}) if self.command == "PUT" else (204, {})
        if self.command == "PUT":
            self.server.order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.command == "GET":
            answers = self.server.answers
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(0 if status == 204 else len(content)))
        self.end_headers()
        self.wfile.write(b"" if status == 204 else content)

    do_GET = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateways() -> Iterator[list[FakeGateway]]:
    servers = [FakeGateway(), FakeGateway()]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def state(agreed: int, differed: int = 0, failed: int = 0, photo: int | None = None) -> dict[str, Any]:
    sides = {side: {"label": side, "confidence": 0.75} for side in ("served", "candidate")}
    confusion = [["clean", "clean", agreed], ["served", "candidate", differed]]
    head = {"agreed": agreed, "compared": agreed + differed, "confusion": confusion}
    return {
        "running": True,
        "counts": {"agreed": agreed, "differed": differed, "failed": failed, "skipped": 7},
        "heads": {"cleanliness": {**head, "largestDifference": 0.5, "meanDifference": 0.1}} if agreed else {},
        "errors": {"service.failed": failed} if failed else {},
        "milliseconds": {"served": [10.0, 20.0], "candidate": [30.0, 40.0]},
        "differences": [{"requestId": "a-request", "photo": photo, "heads": {"cleanliness": sides}}] * bool(differed),
    }


def make_trial(gateways: list[FakeGateway], seen: list[Any], **values: Any) -> ShadowTrial:
    settings: dict[str, Any] = {"share": 0.1, "photos": 100, "agree": 0.98, "timeout": 60.0, "keep_photos": False}
    ends = [Gateway(gateway.url, KEY) for gateway in gateways]
    return ShadowTrial(ends, **{**settings, **values}, done=lambda *found: seen.append(found))


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "POLL_S", 0.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shadow", "10%"], "--shadow needs --gateway"),
        (["--shadow", "0", "--gateway", "http://a"], "--shadow 0 compares nothing"),
        (["--shadow", "ten%", "--gateway", "http://a"], "'ten%' is not a share; write it like 10% or 0.1"),
        (["--shadow", "110%", "--gateway", "http://a"], "is not a number from 0 to 1"),
        (["--gateway", "http://a"], "--gateway needs --shadow"),
        (["--agree", "0.9"], "--agree needs --shadow"),
        (["--shadow-photos", "9"], "--shadow-photos needs --shadow"),
        (["--shadow", "10%", "--gateway", "http://a", "--report", "missing/r.html"], "there is no folder missing"),
    ],
)
def test_options_that_contradict_each_other(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        publish.main(["--version", "2", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gateway", "key", "words"),
    [
        ("http://127.0.0.1:1", None, "--shadow needs the key"),
        ("grpc://127.0.0.1:1", KEY, "--gateway is the http:// or https:// address of a gateway"),
    ],
)
def test_what_is_missing_is_found_first(
    gateway: str, key: str | None, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAR_ANALYZER_ADMIN_KEY", raising=False)
    if key:
        monkeypatch.setenv("CAR_ANALYZER_ADMIN_KEY", key)
    monkeypatch.setattr(publish, "Signature", lambda *_, **__: type("Unsigned", (), {"check": lambda _self: None})())
    assert publish.main(["--version", "2", "--shadow", "10%", "--gateway", gateway]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {"error": "x"}), "was started with another key than Triton"),
        ((404, {"error": "x"}), "was started without --admin-key-file, or is older than this car-analyzer"),
        ((200, {"running": True}), "compares another version already"),
        ((200, {**IDLE, "servedExportId": None}), "The Triton of the gateway"),
        ((200, {**IDLE, "servedExportId": "other"}), "its Triton serves export other, this one old"),
        ((500, {"error": "a bug"}), "answered 500: a bug"),
        ((200, b"<html>"), "is not a gateway of car-analyzer"),
    ],
)
def test_a_gateway_that_cannot_compare(gateways: list[FakeGateway], answer: tuple[int, Any], words: str) -> None:
    gateways[0].answers = [(200, IDLE)]
    gateways[1].answers = [answer]
    with pytest.raises(PublishError, match=words):
        make_trial(gateways, []).check("old")
    gateways[1].answers = [(200, IDLE)]
    make_trial(gateways, []).check("old")


def test_no_gateway_at_all() -> None:
    with pytest.raises(PublishError, match="No gateway answers at http://127.0.0.1:1: Connection refused"):
        Gateway("http://127.0.0.1:1", KEY).check("old")


def test_the_counts_of_several_gateways_are_added(gateways: list[FakeGateway]) -> None:
    gateways[0].answers = [(200, state(10)), (200, state(60))]
    gateways[1].answers = [(200, state(10)), (200, state(60, 1, photo=0)), (200, state(60, 1, photo=0)), (200, b"a")]
    seen: list[Any] = []
    watched: list[int] = []
    comparison = make_trial(gateways, seen, keep_photos=True)
    comparison.watch = watched.append
    comparison.run("old", "new")
    ((outcome, reason),) = seen
    assert reason is None
    assert watched == [20, 121]
    assert gateways[0].order == {
        "model": "car_analyzer_trial",
        "exportId": "new",
        "servedExportId": "old",
        "share": 0.1,
        "photos": 100,
    }
    head = outcome.heads["cleanliness"]
    assert (head.agreed, head.photos) == (120, 121)
    assert head.confusion["clean", "clean"] == 120
    assert outcome.differences[0].photo == b"a"
    assert outcome.latency("candidate", 50) == 35
    for gateway in gateways:
        assert gateway.requests[-1] == ("DELETE", "/shadow")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        # 3 of 100 are more than 2 %, so there is no need to wait for the others.
        ([state(40, 3)], "cleanliness: 93.0% agree"),
        ([state(0, failed=3)], "3 photos got no answer from the new version: service.failed"),
        ([state(96, 2, failed=2)], "2 photos got no answer from the new version: service.failed"),
        ([state(5), {"running": False}], "was restarted, or has ended the comparison"),
    ],
)
def test_what_rejects_a_version(gateways: list[FakeGateway], answers: list[Any], words: str) -> None:
    gateways[0].answers = [(200, answer) for answer in answers]
    with pytest.raises(PublishError, match=words):
        make_trial(gateways[:1], []).run("old", "new")
    assert gateways[0].requests[-1] == ("DELETE", "/shadow")


def test_it_waits_while_enough_photos_can_still_agree(gateways: list[FakeGateway]) -> None:
    gateways[0].answers = [(200, state(20, 10))] * 2 + [(200, state(90, 10))] * 2
    make_trial(gateways[:1], [], agree=0.9).run("old", "new")


def test_too_few_photos_judge_nothing(gateways: list[FakeGateway]) -> None:
    gateways[0].answers = [(200, state(5))]
    with pytest.raises(PublishError, match="Only 5 photos of 100 came through the gateway within 0.01 s"):
        make_trial(gateways[:1], [], timeout=0.01).run("old", "new")


def test_a_gateway_that_stays_away_ends_it(gateways: list[FakeGateway], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE_S", 0.0)
    gateways[0].answers = [(200, state(5))]
    comparison = make_trial(gateways[:1], [])
    monkeypatch.setattr(Gateway, "start", lambda *_: None)
    gateways[0].server_close()  # refuses connections from now on
    with pytest.raises(PublishError, match="No gateway answers"):
        comparison.run("old", "new")


def test_a_gateway_that_rejects_the_order_is_left_alone(
    gateways: list[FakeGateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it compares already, for somebody else, goes on."""
    monkeypatch.setattr(
        Gateway, "_json", lambda *_: (409, {"error": "The gateway compares another candidate already."})
    )
    with pytest.raises(PublishError, match="compares another candidate already"):
        make_trial(gateways[:1], []).run("old", "new")
    assert gateways[0].requests == []


def test_a_rejected_version_has_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sample_photos: list[Path]
) -> None:
    (tmp_path / "key").write_text(KEY)
    arguments = publish._parser().parse_args(
        [f"--admin-key-file={tmp_path}/key", "--shadow=10%", "--gateway=http://a", f"--report={tmp_path}/r.html"]
    )
    outcome = merge([state(96, 4, photo=0)], [{0: sample_photos[0].read_bytes()}])
    shadow = Shadow(arguments)
    shadow.trial.outcome = outcome
    shadow._done(outcome, "Below <98 %>.")
    page = (tmp_path / "r.html").read_text()
    assert "Below &lt;98 %&gt;." in page
    assert "data:image/jpeg" in page
    assert "a-request" in page
    printed = capsys.readouterr().out
    assert "cleanliness: 96.0% agree (96 of 100 photos; on more such photos, likely 90.2% to 98.4%)" in printed
    assert "4  served -> candidate" in printed


def test_nothing_to_compare_can_be_shown(tmp_path: Path) -> None:
    empty = merge([])
    assert empty == Outcome(Counter(), {}, Counter(), {"served": [], "candidate": []}, [])
    assert "0 photos" in as_text(empty)
    write_report(empty, "Nothing.", tmp_path / "r.html")
    json.dumps(empty.facts, allow_nan=False)
