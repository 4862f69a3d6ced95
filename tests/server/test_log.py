"""What of Triton's log reaches the terminal."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from car_analyzer_server import log as module
from car_analyzer_server.log import Log

if TYPE_CHECKING:
    from pathlib import Path

STREAM = 'E1127 04:32:23.38 15185 ensemble.cc:1468] "unable to create stream: CUDA driver version is insufficient"\n'
PINNED = 'W1127 04:32:24.11 15185 pinned_memory_manager.cc:170] "failed to allocate pinned system memory"\n'
OFFICIAL = 'I1127 04:32:24.12 15 onnxruntime.cc:2693] "TRITONBACKEND_ModelInstanceInitialize: a_0_0 (GPU device 0)"\n'
OURS = 'I1127 04:32:24.13 15185 model.py:112] "b_0_0: model.onnx runs on the CPU"\n'
OTHER = 'E1127 04:32:25.02 15185 model.cc:12] "failed to load"\n'
NO_GPU = "There is no GPU here: Triton runs on the CPU.\n"


def shown(
    lines: str, folder: Path, capsys: pytest.CaptureFixture[str], *, verbose: bool = False, ready: bool = True
) -> str:
    """What a Triton that logs these lines, once ready or before, leaves on stderr."""
    (folder / "log").write_text(lines)
    module._report_missing_gpu.cache_clear()
    log = Log(visible=verbose, on_first_line=lambda: None)
    if ready:
        log.show()
    with subprocess.Popen(["cat", folder / "log"], stdout=subprocess.PIPE, text=True) as process:
        log.follow(process)
        assert log._reader is not None
        log._reader.join()
    return capsys.readouterr().err


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The GPU driver's file, which is missing unless a test makes it."""
    file = tmp_path / "nvidiactl"
    monkeypatch.setattr(module, "_GPU_DRIVER", file)
    return file


@pytest.mark.usefixtures("driver")
def test_without_a_gpu_one_line_replaces_all_errors_about_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(STREAM + PINNED + OTHER + STREAM, tmp_path, capsys) == NO_GPU + OTHER


@pytest.mark.usefixtures("driver")
def test_verbose_shows_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(STREAM + OTHER, tmp_path, capsys, verbose=True) == STREAM + OTHER


def test_with_a_gpu_its_errors_are_shown(driver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver.touch()
    assert shown(STREAM + OTHER, tmp_path, capsys) == STREAM + OTHER


def test_with_a_gpu_the_device_of_each_network_is_shown_before_triton_is_ready(
    driver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(OFFICIAL + OURS + OTHER, tmp_path, capsys, ready=False) == ""
    driver.touch()
    assert shown(OFFICIAL + OURS + OTHER, tmp_path, capsys, ready=False) == OFFICIAL + OURS
