"""Start and shutdown: requests in flight complete, invalid settings are named, no process remains."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from car_analyzer import ConfigurationError
from car_analyzer_gateway._settings import read_settings
from tests.conftest import PATIENCE_S, until

from .conftest import HEALTHY, Gateway, make_form
from .test_refusals import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import SimpleNamespace

    import httpx

    from reliability.proxy import Proxy

pytestmark = pytest.mark.triton


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "car_analyzer_gateway", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **variables})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_finish_what_is_in_flight(
    server: SimpleNamespace,
    make_proxy: Callable[..., Proxy],
    start_gateway: Callable[..., Gateway],
    photo: bytes,
    number: signal.Signals,
) -> None:
    proxy = make_proxy(server.http_url).listen()
    gateway = start_gateway(f"http://127.0.0.1:{proxy.port}", "--timeout", "600", "--drain-timeout", "600")
    proxy.freeze()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(gateway.analyze, photo)
        until(lambda: gateway.metric("car_analyzer_held_bytes"))
        gateway.process.send_signal(number)
        stopping = {"status": "unavailable", "error": "the gateway is stopping"}
        until(lambda: gateway.http.get("/health").json() == stopping)
        body, headers = make_form(photo)
        refusal = httpx.post(f"{gateway.url}/analyze", content=body, headers=headers)
        proxy.thaw()
    refused(refusal, 503, "The service is stopping")
    assert "retry-after" in refusal.headers
    assert answer.result().status_code == 200
    assert gateway.process.wait(PATIENCE_S) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port))


def test_what_takes_too_long_is_cut_off(
    server: SimpleNamespace,
    make_proxy: Callable[..., Proxy],
    start_gateway: Callable[..., Gateway],
    photo: bytes,
) -> None:
    proxy = make_proxy(server.http_url).listen()
    gateway = start_gateway(f"http://127.0.0.1:{proxy.port}", "--timeout", "600", "--drain-timeout", "0.5")
    proxy.freeze()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(gateway.analyze, photo)
        until(lambda: gateway.metric("car_analyzer_held_bytes"))
        gateway.process.terminate()
    refused(answer.result(), 503, "The service is stopping")
    assert gateway.process.wait(PATIENCE_S) == 0
    assert not [line for line in gateway.log() if "traceback" in line]


def test_no_connection_is_reset(server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes) -> None:
    gateway = start_gateway(server.grpc_url)
    body, headers = make_form(photo)
    statuses: list[int] = []

    def send_until_refused() -> None:
        while True:
            with contextlib.closing(HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)) as connection:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
                connection.request("POST", "/analyze", body, headers)
                statuses.append(connection.getresponse().status)

    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(send_until_refused) for _ in range(16)]
        until(lambda: len(statuses) > len(clients))
        gateway.process.terminate()
        for client in clients:
            client.result()
    assert set(statuses) == {200, 503}
    assert gateway.process.wait(PATIENCE_S) == 0


def test_a_kept_connection_is_answered_once_more(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    gateway = start_gateway(server.grpc_url, "--drain-timeout", "600", "--upload-timeout", "600")
    body, headers = make_form(photo)
    answers: list[tuple[int, str | None]] = []

    def read(connection: HTTPConnection) -> None:
        answer = connection.getresponse()
        answer.read()
        answers.append((answer.status, answer.getheader("Connection")))

    kept, bad, slow = (HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S) for _ in range(3))
    with contextlib.closing(kept), contextlib.closing(bad), contextlib.closing(slow):
        for connection in (kept, bad):
            connection.request("POST", "/analyze", body, headers)
            read(connection)
        # As long as this one is in flight, the gateway does not end.
        slow.request("POST", "/analyze", body[:-1], {**headers, "Content-Length": str(len(body))})
        until(lambda: gateway.metric("car_analyzer_held_bytes"))
        gateway.process.terminate()
        until(lambda: any(line["message"] == "stopping" for line in gateway.log()))
        kept.request("POST", "/analyze", body, headers)
        read(kept)
        bad.request("POST", "/analyze", *make_form(b"no photo"))
        read(bad)
        slow.send(body[-1:])
        read(slow)
    assert answers == [(200, None)] * 2 + [(200, "close"), (400, "close"), (200, "close")]
    assert gateway.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (
            ["--port", "99999"],
            {},
            "--port (CAR_ANALYZER_PORT): Input should be less than or equal to 65535, not '99999'",
        ),
        ([], {"CAR_ANALYZER_TIMEOUT": "soon"}, "--timeout (CAR_ANALYZER_TIMEOUT): Input should be a valid number"),
        (["--timeout", "0"], {}, "--timeout"),
        (["--timeout", "inf"], {}, "--timeout"),
        (["--url", "ftp://x"], {}, "must be one of grpc, grpcs, http, https"),
        (["--cors-origins", "app.example"], {}, "'app.example' is not a valid origin"),
        (["--token-file", "/nowhere/token"], {}, "cannot read the token file /nowhere/token"),
        (["--token-file", "/dev/null"], {}, "the token must be one word"),
        (["--token-file", "x"], {"CAR_ANALYZER_TOKEN": "y"}, "not both"),
        (["--token", "x"], {}, "unrecognized arguments: --token"),
        (["--max-photo-bytes", "40MB"], {}, "must not be less than --max-photo-bytes"),
        (["--max-photos", "0"], {}, "--max-photos"),
        (["--protect", "none"], {}, "--protect"),
        (["--repository", "x", "--port", "-1"], {}, "--port"),
        (["--http-port", "0"], {}, "--http-port is for the Triton that --repository starts"),
    ],
)
def test_wrong_settings_are_named(arguments: list[str], variables: dict[str, str], message: str) -> None:
    ran = run(*arguments, **variables)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_wrong_token_is_not_shown() -> None:
    ran = run(CAR_ANALYZER_TOKEN="two words")
    assert ran.returncode == 2
    assert "two words" not in ran.stderr


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("--port", str(port))
    assert ran.returncode == 1
    assert f"port {port} on 127.0.0.1 cannot be used (Address already in use)" in ran.stderr


def test_help_shows_flags_defaults_and_examples() -> None:
    text = " ".join(run("--help").stdout.split())
    for word in (
        "--url",
        "--port",
        "default: 5000",
        "--cors-origins",
        "CAR_ANALYZER_TOKEN",
        "examples:",
        "exit codes:",
    ):
        assert word in text
    assert "--token " not in text


def test_variables_and_flags(server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes) -> None:
    # Kubernetes sets the second one if there is a service of this name.
    variables = {"CAR_ANALYZER_MAX_PHOTOS": "1", "CAR_ANALYZER_PORT": "tcp://10.0.0.1:8001", "CAR_ANALYZER_TOKEN": ""}
    gateway = start_gateway(server.grpc_url, **variables)
    refused(gateway.analyze(photo, photo), 413, "at most 1")
    gateway = start_gateway(server.grpc_url, "--max-photos", "2", **variables)
    assert gateway.analyze(photo, photo).status_code == 200


def test_a_misspelt_variable_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of other commands and of Kubernetes are not the gateway's.
    for name in ("CORES", "SERVICE_HOST", "PORT_80_TCP", "TRITON_SERVICE_PORT"):
        monkeypatch.setenv(f"CAR_ANALYZER_{name}", "1")
    read_settings({})
    monkeypatch.setenv("CAR_ANALYZER_MAX_PHOTO", "1")
    with pytest.raises(
        ConfigurationError, match="no setting CAR_ANALYZER_MAX_PHOTO; did you mean CAR_ANALYZER_MAX_PHOTOS?"
    ):
        read_settings({})


class TestTogether:
    """`car-analyzer gateway --repository`: a Triton and its gateway as one command."""

    @pytest.fixture
    def together(self, repository: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
        processes = []

        def start() -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "car_analyzer_gateway", "--json", "--repository", str(repository)]
            command += [word for flag in ("", "http-", "grpc-", "metrics-") for word in (f"--{flag}port", "0")]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            processes.append(process)
            return process

        yield start
        for process in processes:
            process.kill()
            process.communicate()

    @staticmethod
    def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        until(lambda: httpx.get(f"{answer['gateway']}/health", timeout=PATIENCE_S).json() == HEALTHY)
        return answer

    @staticmethod
    def children(pid: int) -> dict[str, int]:
        """The processes of `serve` and Triton, by their command lines."""
        parents, commands = {}, {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        family = {pid}
        while grown := {child for child, parent in parents.items() if parent in family} - family:
            family |= grown
        return {commands[member]: member for member in family - {pid}}

    @staticmethod
    def wait_until_gone(pids: dict[str, int]) -> None:
        until(lambda: not [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()])

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_stops_both(self, together: Callable[..., subprocess.Popen[str]], number: signal.Signals) -> None:
        process = together()
        self.ready(process)
        children = self.children(process.pid)
        assert any("tritonserver" in name for name in children)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert "Triton is ready: grpc grpc://127.0.0.1:" in errors
        self.wait_until_gone(children)

    def test_the_gateway_stops_with_its_triton(self, together: Callable[..., subprocess.Popen[str]]) -> None:
        process = together()
        self.ready(process)
        children = self.children(process.pid)
        os.kill(next(pid for name, pid in children.items() if "-m car_analyzer serve" in name), signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert "stopped by itself with exit code" in errors
        self.wait_until_gone(children)

    def test_a_triton_that_dies_is_started_again(
        self, together: Callable[..., subprocess.Popen[str]], photo: bytes
    ) -> None:
        process = together()
        address = self.ready(process)["gateway"]
        children = self.children(process.pid)
        os.kill(next(pid for name, pid in children.items() if "tritonserver" in name), signal.SIGKILL)
        statuses: list[int] = []

        def is_answered() -> bool:
            statuses.append(httpx.post(f"{address}/analyze", files={"image": photo}, timeout=PATIENCE_S).status_code)
            return statuses[-1] == 200

        until(is_answered)
        assert set(statuses) <= {200, 503}
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert "exit code -9 (SIGKILL). Starting it again" in errors

    def test_nothing_is_left_when_it_is_killed(self, together: Callable[..., subprocess.Popen[str]]) -> None:
        process = together()
        self.ready(process)
        children = self.children(process.pid)
        process.kill()
        process.communicate()
        self.wait_until_gone(children)

    def test_a_missing_repository(self, tmp_path: Path) -> None:
        ran = run("--repository", str(tmp_path / "nowhere"), "--port", "0")
        assert ran.returncode == 1
        assert "does not exist" in ran.stderr
