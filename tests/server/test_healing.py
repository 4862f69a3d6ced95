"""`serve` heals itself: what died is started again, what only changed is left alone, and a lost cause is given up."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from google.protobuf import text_format

from car_analyzer import CarAnalyzer
from car_analyzer_server import ModelControlError, Server, Settings, StartError, supervisor
from car_analyzer_server import stubs as stubs_module
from car_analyzer_server.repository import read_config
from car_analyzer_server.stubs import Stubs
from car_analyzer_server.supervisor import Supervisor
from reliability import processes
from reliability.service import Service
from tests.conftest import PATIENCE_S, SMALL_TRITON, until

from .test_serve import left_behind

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key-for-the-tests-of-healing"


def post(service: Service, path: str) -> Any:
    request = urllib.request.Request(f"{service.addresses['http']}{path}", b"{}", {"admin-key": KEY})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


@pytest.fixture
def service(copy: Path) -> Iterator[Service]:
    with Service(copy, variables={"CAR_ANALYZER_ADMIN_KEY": KEY}) as service:
        yield service


def test_what_died_is_started_again(copy: Path, service: Service, sample_photos: list[Path]) -> None:
    with (
        CarAnalyzer(service.addresses["grpc"], timeout=PATIENCE_S) as grpc,
        CarAnalyzer(service.addresses["http"], timeout=PATIENCE_S) as http,
    ):
        expected = [grpc.analyze(photo).heads for photo in sample_photos]

        def check() -> None:
            for analyzer in (grpc, http):
                assert [result.heads for result in analyzer.analyze_many(sample_photos) if result.ok] == expected

        # What another program loads, with new processes in the place of the old, is not taken for a death.
        for model in ("preprocess", "condition"):
            before = service.stub(model)
            os.utime(next((copy / model / "1").glob("model.*")))
            post(service, f"/v2/repository/models/{model}/load")
            check()
            until(lambda gone=before: not psutil.pid_exists(gone))
            assert service.stub(model) != before
            assert not service.said(f"(pid {before})")

        for model in ("preprocess", "condition"):
            os.kill(pid := service.stub(model), signal.SIGKILL)
            check()
            service.wait_for(f"The model '{model}' has new processes")
            assert service.said(f"A process of the model '{model}' (pid {pid}) was killed by signal 9 (SIGKILL)")

        for number, said in ((signal.SIGKILL, "-9 (SIGKILL)"), (signal.SIGSEGV, "-11 (SIGSEGV)")):
            os.kill(service.triton(), number)
            check()
            service.wait_for(f"Triton stopped by itself with exit code {said}. Starting it again")
            check()
        # The administrator's key is the same.
        assert {entry["name"] for entry in post(service, "/v2/repository/index")} >= {"car_analyzer", "condition"}
    assert service.stop() == 0
    assert left_behind(service.pid) == []
    assert not [line for line in service.lines if "Traceback" in line]


def test_a_signal_between_two_starts_stops_everything(copy: Path, service: Service) -> None:
    model = copy / "condition" / "1" / "model.onnx"
    model.rename(copy / "model.onnx")
    os.kill(service.triton(), signal.SIGKILL)
    # The repository became broken meanwhile: that is said, and tried again.
    service.wait_for("The model 'condition' is broken", 2)
    assert service.stop() == 0
    assert left_behind(service.pid) == []


def test_a_repository_that_was_mended_is_served_again(copy: Path, service: Service, sample_photos: list[Path]) -> None:
    model = copy / "condition" / "1" / "model.onnx"
    model.rename(copy / "model.onnx")
    with CarAnalyzer(service.addresses["grpc"], timeout=PATIENCE_S) as analyzer:
        expected = analyzer.analyze(sample_photos[0]).heads
        os.kill(service.triton(), signal.SIGKILL)
        service.wait_for("The model 'condition' is broken")
        (copy / "model.onnx").rename(model)
        assert analyzer.analyze(sample_photos[0]).heads == expected


def test_a_lost_cause_is_given_up(copy: Path) -> None:
    with Server(Settings(copy, **SMALL_TRITON)) as server:
        (copy / "condition" / "1" / "model.onnx").unlink()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(StartError, match=r"model\.onnx is missing\. Giving up after 2 new starts in a row"):
            Supervisor(server, pauses=(0, 0.1)).run()


def test_a_triton_that_hangs_is_noticed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HEALTH_TIMEOUT_S", 0.5)
    with Server(Settings(repository, **SMALL_TRITON)) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StartError, match="3 health checks in a row timed out"):
                Supervisor(server, restart=False).run()
        finally:
            server.stop(at_once=True)


def test_a_death_that_nobody_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    # Before the first look, or taken off the list by Triton between two of them.
    running = {1: "preprocess", 3: "condition"}
    monkeypatch.setattr(stubs_module, "_children", lambda _: list(running))
    monkeypatch.setattr(stubs_module, "_read", lambda pid: (None, (running[pid], versions.get(pid, "1"))))
    versions: dict[int, str] = {}
    loaded = {("preprocess", "1"): 2, ("condition", "1"): 1}
    stubs = Stubs(0, lambda *model: loaded.get(model, 0))

    def look() -> list[str]:
        assert stubs.look() == []
        return stubs.short()

    assert [look() for _ in range(3)] == [[], ["preprocess"], []]
    running |= {4: "preprocess", 5: "preprocess"}
    del running[1]
    assert [look() for _ in range(3)] == [[], [], []]
    del running[5]
    assert [look() for _ in range(3)] == [[], ["preprocess"], []]
    # The only one.
    del running[3]
    assert [look() for _ in range(3)] == [[], ["condition"], []]
    running[6] = "condition"
    assert [look() for _ in range(3)] == [[], [], []]
    # Another version is loaded beside it, and does not replace it.
    running[7], versions[7], loaded["condition", "2"] = "condition", "2", 1
    assert [look() for _ in range(3)] == [[], [], []]
    del running[6]
    assert [look() for _ in range(3)] == [[], ["condition"], []]
    # Unloaded.
    del running[7], loaded["condition", "1"], loaded["condition", "2"]
    assert [look() for _ in range(3)] == [[], [], []]


def test_renewing(copy: Path) -> None:
    preprocess = read_config(copy, "preprocess")
    preprocess.instance_group[0].ClearField("count")
    (copy / "preprocess" / "config.pbtxt").write_text(text_format.MessageToString(preprocess))
    with Server(Settings(copy, **SMALL_TRITON | {"cores": 2})) as server:
        stubs = Stubs(server.pid, server.instances)

        def alive() -> tuple[int, int]:
            stubs.look()
            return stubs.alive("preprocess"), stubs.alive("condition")

        # Replaced processes end a moment later.
        until(lambda: alive() == (3, 1), alive)
        assert server.renew("preprocess")
        until(lambda: alive() == (3, 1), alive)
        before = {stub.pid for stub in processes.stubs(server.pid)}
        for _ in range(2):
            assert server.renew("condition")
            assert stubs.look() == []
            after = {stub.pid for stub in processes.stubs(server.pid)}
            assert after - before
            before = after
        # What is published later is served, though only its configuration changed.
        config = read_config(copy, "condition")
        config.dynamic_batching.max_queue_delay_microseconds = 17
        (copy / "condition" / "config.pbtxt").write_text(text_format.MessageToString(config))
        server.load("condition")
        with urllib.request.urlopen(f"{server.http_url}/v2/models/condition/config") as answer:
            served = json.load(answer)
        assert served["dynamic_batching"]["max_queue_delay_microseconds"] == 17
        assert "renewed" not in served.get("parameters", {})
        (copy / "condition" / "config.pbtxt").write_text("name: ?")
        with pytest.raises(Exception, match=r"config\.pbtxt cannot be read"):
            server.renew("condition")
        server.unload("condition")
        assert not server.renew("condition")
        with pytest.raises(ModelControlError):
            server.load("no-such-model")
