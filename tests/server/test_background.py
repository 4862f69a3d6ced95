"""`serve --detach` and `stop`: a server in the background is found, stopped, and never mistaken for another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from car_analyzer_server import SettingsError, StopError
from car_analyzer_server._stop import main as stop
from car_analyzer_server.background import Background
from tests.conftest import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 9001
# Starts a process in the background that does what the second argument says.
STUB = """
import signal
import sys

from car_analyzer_server import ServingError, signals
from car_analyzer_server.background import Background


def serve(ready):
    {work}


try:
    with signals.raised_as_keyboard_interrupt():
        print(Background({port}).start(serve))
except ServingError as error:
    sys.exit(f"refused: {{error}}")
"""
RUN = "ready('it is ready'); signal.pause()"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + RUN
FAIL = "print('no GPU today', file=sys.stderr); return 1"
CRASH = "raise ValueError('a bug')"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield tmp_path / "car-analyzer"
    for server in Background.running():
        os.kill(server.pid() or 0, 9)


def start(work: str, port: int = PORT) -> subprocess.CompletedProcess[str]:
    script = STUB.format(work=work, port=port)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_stop_ends_the_process_and_may_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    started = start(RUN)
    assert (started.returncode, started.stdout) == (0, "it is ready\n"), started.stderr
    pid = Background(PORT).pid()
    assert pid is not None
    assert stop(["--grpc-port", str(PORT)]) == 0
    assert capsys.readouterr().out == f"Stopped the server with gRPC port {PORT} (pid {pid}).\n"
    assert Background(PORT).pid() is None
    assert stop(["--grpc-port", str(PORT)]) == 0
    assert capsys.readouterr().out == f"No server with gRPC port {PORT} runs in the background.\n"


def test_a_second_start_is_refused_and_leaves_the_first_its_log(state: Path) -> None:
    start(f"print('first', flush=True); {RUN}")
    second = start(RUN)
    assert second.returncode == 1
    assert f"gRPC port {PORT} runs in the background already (pid {Background(PORT).pid()})" in second.stderr
    assert f"`car-analyzer stop --grpc-port {PORT}`" in second.stderr
    assert (state / f"serve-{PORT}.log").read_text() == "first\n"


def test_two_servers_run_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    start(RUN)
    start(RUN, port=8001)
    assert [server.port for server in Background.running()] == [8001, PORT]
    assert stop([]) == 0
    assert stop([]) == 0
    assert f"Others run; to stop them: `car-analyzer stop --grpc-port {PORT}`." in capsys.readouterr().out
    assert [server.port for server in Background.running()] == [PORT]


@pytest.mark.parametrize(("work", "reason"), [(FAIL, "no GPU today"), (CRASH, "ValueError: a bug")])
def test_a_server_that_ends_before_it_is_ready_shows_its_log(work: str, reason: str, state: Path) -> None:
    started = start(work)
    assert started.returncode == 1
    assert f"ended before it was ready. The end of its log, {state / f'serve-{PORT}.log'}:\n" in started.stderr
    assert reason in started.stderr
    assert Background(PORT).pid() is None


def test_a_signal_during_the_start_ends_both_processes() -> None:
    starting = subprocess.Popen([sys.executable, "-c", STUB.format(work="signal.pause()", port=PORT)])
    until(lambda: Background(PORT).pid())
    starting.terminate()
    starting.wait(PATIENCE_S)
    assert Background(PORT).pid() is None


def test_another_process_with_the_same_id_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        # The server ends, and the other process gets its id, between two looks.
        answers = iter([other.pid, None])
        monkeypatch.setattr(Background, "pid", lambda _self: next(answers))
        assert Background(PORT).stop(PATIENCE_S) == other.pid
        other.communicate(b"\n", timeout=PATIENCE_S)
    assert other.returncode == 0


def test_a_killed_server_does_not_run(state: Path) -> None:
    start(RUN)
    os.kill(Background(PORT).pid() or 0, 9)
    until(lambda: Background(PORT).pid() is None)
    assert (state / f"serve-{PORT}.lock").exists()
    assert Background(PORT).stop(PATIENCE_S) is None
    assert start(RUN).returncode == 0


def test_a_process_that_does_not_end_is_reported() -> None:
    start(STUBBORN)
    with pytest.raises(StopError, match=r"still runs 0 s after SIGTERM; see .*serve-9001\.log"):
        Background(PORT).stop(0)


def test_a_state_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    with pytest.raises(SettingsError, match=r"cannot be written \(Not a directory\); set \$XDG_STATE_HOME"):
        Background(PORT).start(lambda _ready: 0)


def car_analyzer(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "car_analyzer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


ANY_PORTS = ("--http-port", 0, "--grpc-port", 0, "--metrics-port", 0, "--cores", 1)


def test_a_triton_in_the_background(repository: Path) -> None:
    started = car_analyzer("serve", "--detach", "--json", "--repository", repository, *ANY_PORTS)
    assert started.returncode == 0, started.stderr
    facts = json.loads(started.stdout)
    assert "warning: These are demo models" in started.stderr
    with urllib.request.urlopen(f"{facts['http']}/v2/models/car_analyzer/ready") as answer:
        assert answer.status == 200
    port = facts["grpc"].rpartition(":")[2]
    again = car_analyzer("serve", "--detach", "--repository", repository, "--grpc-port", port)
    assert again.returncode == 1
    assert "runs in the background already" in again.stderr
    assert car_analyzer("stop", "--grpc-port", port).returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(facts["pid"], 0)
    assert Path(facts["log"]).read_text().endswith("Stopped.\n")


def test_a_repository_that_cannot_be_served(tmp_path: Path) -> None:
    started = car_analyzer("serve", "--detach", "--repository", tmp_path / "nothing", *ANY_PORTS)
    assert started.returncode == 1
    assert started.stdout == ""
    assert "nothing does not exist; make one with `car-analyzer export`" in started.stderr
