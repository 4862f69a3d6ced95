"""From its start to its end: what outlives what, what is tried again, and what a killed Triton leaves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from car_analyzer import CarAnalyzer
from car_analyzer_server import Server, Settings, StartError
from car_analyzer_server.installation import find_installation
from reliability import processes
from reliability.service import Service
from tests.conftest import SMALL_TRITON

from .test_serve import left_behind

if TYPE_CHECKING:
    from types import SimpleNamespace

LOCKED = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'"


def wrapper(folder: Path, before: str) -> Path:
    """A program that notes each of its runs, does something before it becomes the wheel's Triton, or instead of it."""
    installation = find_installation()
    backends = " ".join(installation.prepare(folder / "backends"))
    environment = installation.environment()
    exports = "\n".join(f'export {name}="{environment[name]}"' for name in ("LD_LIBRARY_PATH", "PATH"))
    program = folder / "tritonserver"
    program.write_text(
        f'#!/bin/sh\necho run >> {folder}/runs\n{before}\n{exports}\nexec "{installation.binary}" {backends} "$@"\n'
    )
    program.chmod(0o755)
    return program


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


def parent(process: psutil.Process) -> int | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.ppid())
    return None


def test_a_triton_outlives_the_thread_that_started_it(repository: Path, sample_photos: list[Path]) -> None:
    server = Server(Settings(repository, **SMALL_TRITON))
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        # One that was told to stop takes no photos any more.
        assert server.wait(1) is None
        with CarAnalyzer(server.grpc_url) as analyzer:
            assert analyzer.analyze(sample_photos[0]).heads
    finally:
        server.stop()


@pytest.mark.parametrize("end", ["kill -ABRT $$", "kill -SEGV $$", f'echo "{LOCKED}"; exit 1'])
def test_a_start_that_was_aborted_is_tried_once_more(
    repository: Path, tmp_path: Path, end: str, capfd: pytest.CaptureFixture[str]
) -> None:
    program = wrapper(tmp_path, f"{end}\n")
    with pytest.raises(StartError, match=r"Triton stopped with exit code"):
        Server(Settings(repository, tritonserver=program, **SMALL_TRITON)).start()
    assert runs(tmp_path) == 2
    assert capfd.readouterr().err.count("Starting it once more.") == 1


def test_the_second_start_is_as_good_as_the_first(
    repository: Path, tmp_path: Path, sample_photos: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    program = wrapper(tmp_path, f"[ $(wc -l < {tmp_path}/runs) -gt 1 ] || kill -ABRT $$")
    settings = Settings(repository, tritonserver=program, **SMALL_TRITON)
    with Server(settings) as server, CarAnalyzer(server.grpc_url) as analyzer:
        assert analyzer.analyze(sample_photos[0]).heads
    assert runs(tmp_path) == 2
    assert "warning: Triton stopped with exit code -6. Starting it once more." in capfd.readouterr().err


def test_a_start_that_fails_for_a_reason_is_not_repeated(repository: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(repository, tmp_path / "model_repository")
    (copy / "condition" / "1" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(StartError, match="INVALID_PROTOBUF"):
        Server(Settings(copy, tritonserver=wrapper(tmp_path, ""), **SMALL_TRITON)).start()
    assert runs(tmp_path) == 1


def test_what_a_killed_triton_left_is_removed(repository: Path, server: SimpleNamespace) -> None:
    service = Service(repository)
    service.start()
    triton = service.triton()
    stubs = processes.stubs(triton)
    assert len(stubs) == 4
    for stub in stubs:  # like one that waits in a lock for ever
        os.kill(stub.pid, signal.SIGSTOP)
    # At once, so that nobody can clean up after the other.
    os.kill(service.pid, signal.SIGSTOP)
    os.kill(triton, signal.SIGKILL)
    os.kill(service.pid, signal.SIGKILL)
    assert service.stop() == -signal.SIGKILL
    # Of one that died whole, too, nothing but its memory is left.
    abandoned = Path(f"/dev/shm/car_analyzer_{service.pid}_abandoned")
    abandoned.write_bytes(b"")
    of_the_living = {stub.pid for stub in processes.stubs(server.pid)}
    memory_of_the_living = set(Path("/dev/shm").glob(f"car_analyzer_{os.getpid()}_*"))
    try:
        deadline = time.monotonic() + 30
        while any(parent(stub) == triton for stub in stubs):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with Server(Settings(repository, **SMALL_TRITON)):
            assert left_behind(service.pid) == []
        assert {stub.pid for stub in processes.stubs(server.pid)} == of_the_living
        assert memory_of_the_living <= set(Path("/dev/shm").glob(f"car_analyzer_{os.getpid()}_*"))
    finally:
        abandoned.unlink(missing_ok=True)
        for stub in stubs:
            if stub.is_running():
                stub.kill()
