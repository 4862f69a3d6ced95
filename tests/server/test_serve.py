"""Starting and stopping a real Triton: what goes wrong is said in a sentence, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer_server import InstallationError, RepositoryError, Server, Settings, StartError
from car_analyzer_server._cli import _parser, _settings
from car_analyzer_server.installation import find_installation
from car_analyzer_server.repository import check_repository, demo_warning
from car_analyzer_server.settings import with_ports
from tests.conftest import PATIENCE_S, edit, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--cores", "1"]


def serve(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "car_analyzer", "serve", "--json", *ANY_PORTS, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    answer: dict[str, Any] = json.loads(line)
    return answer


def left_behind(pid: int) -> list[str]:
    """Processes, shared memory and folders of the `serve` process `pid` and its Triton."""
    found = [str(path) for path in Path("/dev/shm").glob(f"car_analyzer_{pid}_*")]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"car_analyzer_{pid}_" in command:
            found.append(command)
    return found


def wait_until_nothing_is_left(pid: int) -> None:
    until(lambda: not left_behind(pid))


def test_photos_are_logged_by_flag_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAR_ANALYZER_LOG_PHOTOS", raising=False)
    assert not _settings(_parser().parse_args([]), []).log_photos
    assert _settings(_parser().parse_args(["--log-photos"]), []).log_photos
    monkeypatch.setenv("CAR_ANALYZER_LOG_PHOTOS", "1")
    assert _settings(_parser().parse_args([]), []).log_photos


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(repository: Path, signal_number: int) -> None:
    process = serve("--repository", repository)
    addresses = ready(process)
    assert left_behind(process.pid)
    with urllib.request.urlopen(f"{addresses['http']}/v2/models/car_analyzer/ready") as answer:
        assert answer.status == 200
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "Stopped." in errors
    assert errors.count("warning: These are demo models: do not rely on their answers. Two small networks") == 1
    assert errors.count("There is no GPU here") == (not Path("/dev/nvidiactl").exists())
    assert "Traceback" not in errors
    assert left_behind(process.pid) == []
    with pytest.raises(ProcessLookupError):
        os.kill(addresses["pid"], 0)


def test_a_signal_while_starting_stops_everything(repository: Path) -> None:
    process = serve("--repository", repository)
    until(lambda: left_behind(process.pid))
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    assert left_behind(process.pid) == []


def test_triton_goes_when_serve_is_killed(repository: Path) -> None:
    process = serve("--repository", repository)
    ready(process)
    process.kill()
    process.communicate()
    wait_until_nothing_is_left(process.pid)


def test_triton_goes_with_serve_when_it_is_not_to_be_restarted(repository: Path) -> None:
    process = serve("--repository", repository, "--no-restart")
    os.kill(ready(process)["pid"], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "Triton stopped by itself with exit code -9 (SIGKILL)" in errors
    assert left_behind(process.pid) == []


def test_a_failed_start_says_why_and_leaves_nothing(copy: Path) -> None:
    (copy / "condition" / "1" / "model.onnx").write_bytes(b"not a model")
    process = serve("--repository", copy)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "failed to load 'condition'" in errors
    assert "INVALID_PROTOBUF" in errors
    assert "Traceback (most" not in errors
    assert left_behind(process.pid) == []


def test_no_outgoing_connection_can_take_a_free_port() -> None:
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not outgoing.is_file() or (first := int(outgoing.read_text().split()[0])) < 16_000:
        pytest.skip("no ports are left to the others")
    chosen = with_ports(Settings(http_port=0, grpc_port=0, metrics_port=0))
    ports = {chosen.http_port, chosen.grpc_port, chosen.metrics_port}
    assert len(ports) == 3
    assert max(ports) < first


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_port_in_use_is_named(repository: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, errors = (process := serve("--repository", repository, flag, port)).communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used (Address already in use)" in errors
    assert flag in errors


def test_two_servers_run_side_by_side(repository: Path) -> None:
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)) as other:
        with urllib.request.urlopen(f"{other.http_url}/v2/health/ready") as answer:
            assert answer.status == 200
        with urllib.request.urlopen(other.metrics_url) as answer:
            assert b"nv_inference_request_success" in answer.read()


def test_arguments_after_two_dashes_reach_triton(repository: Path) -> None:
    process = serve("--repository", repository, "--", "--id=from-the-test")
    address = ready(process)["http"]
    with urllib.request.urlopen(f"{address}/v2") as answer:
        assert json.load(answer)["name"] == "from-the-test"
    process.terminate()
    process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--http-port", "99999"], "'99999' is not a port"),
        (["--", "--http-port=9"], "use --http-port before --"),
        (["--", "--model-repository=/x"], "use --repository"),
        (["--", "--allow-http=false"], "cannot be switched off"),
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], message: str) -> None:
    process = serve(*arguments)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert message in errors


def breakages() -> Iterator[tuple[str, Any, str]]:
    yield "missing", shutil.rmtree, "does not exist; make one with `car-analyzer export`"
    yield "empty", lambda r: [shutil.rmtree(path) for path in r.iterdir()], "holds no model"
    yield "head never exported", lambda r: shutil.rmtree(r / "condition" / "1"), "'condition' was never exported"
    yield "model missing", lambda r: (r / "condition/1/model.onnx").unlink(), "condition/1/model.onnx is missing"
    yield "step missing", lambda r: shutil.rmtree(r / "preprocess"), "'car_analyzer' needs the model 'preprocess'"
    yield (
        "not a config",
        lambda r: (r / "condition/config.pbtxt").write_text("name: ?"),
        "config.pbtxt cannot be read",
    )


@pytest.mark.parametrize(("break_it", "message"), [pytest.param(*rest, id=name) for name, *rest in breakages()])
def test_a_broken_repository_is_described(copy: Path, break_it: Any, message: str) -> None:
    break_it(copy)
    with pytest.raises(RepositoryError, match=message):
        check_repository(copy)


def test_a_clean_checkout_says_that_nothing_was_exported() -> None:
    committed = Path(__file__).parents[2] / "model_repository"
    if list(committed.glob("*/*/model.onnx")):
        pytest.skip("something was exported into this checkout")
    with pytest.raises(RepositoryError, match="was never exported"):
        check_repository(committed)


def test_only_demo_models_are_announced(copy: Path) -> None:
    assert str(demo_warning(copy)).endswith("On photographs their answers mean nothing.")
    edit(copy, "car_analyzer", lambda config: config.parameters.pop("description"))
    assert demo_warning(copy) == "These are demo models: do not rely on their answers."
    edit(copy, "car_analyzer", lambda config: config.parameters.pop("demo"))
    assert demo_warning(copy) is None


def test_a_path_in_which_triton_would_wait_for_ever(repository: Path, tmp_path: Path) -> None:
    spaced = shutil.copytree(repository, tmp_path / "my models")
    with pytest.raises(RepositoryError, match="has a space in it"):
        check_repository(spaced)


def test_the_wheel_is_found_and_a_wrong_executable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_installation().describe() == "the nvidia-pytriton wheel"
    with pytest.raises(InstallationError, match="nowhere is not an executable program"):
        find_installation(tmp_path / "nowhere")
    on_path = tmp_path / "tritonserver"
    on_path.write_text("#!/bin/sh\nexit 3\n")
    on_path.chmod(0o755)
    assert find_installation().binary == on_path
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pytriton", raising=False)
    on_path.unlink()
    with pytest.raises(InstallationError, match=r"pip install 'car-analyzer\[server\]'"):
        find_installation()


def test_a_temporary_folder_where_nothing_can_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only root can mount one.
    mounted = SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID)
    monkeypatch.setattr(os, "statvfs", lambda _path: mounted)
    with pytest.raises(InstallationError, match=f"{tmp_path}, which is mounted with noexec.*TMPDIR"):
        find_installation().prepare(tmp_path / "backends")


def test_a_server_that_stops_at_once_is_reported(repository: Path, tmp_path: Path) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\necho 'error: no licence'\nexit 3\n")
    program.chmod(0o755)
    settings = Settings(repository, http_port=0, grpc_port=0, metrics_port=0, tritonserver=program)
    with pytest.raises(StartError, match=r"(?s)exit code 3.*no licence"):
        Server(settings).start()
