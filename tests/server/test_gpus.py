"""Several GPUs, as far as this machine's folder of devices can be another one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup, ModelParameter

from car_analyzer_server import Server, Settings, gpus
from car_analyzer_server.repository import read_config
from tests.conftest import SMALL_TRITON, edit

from .test_lifetime import wrapper

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (folder / name).touch()
    monkeypatch.setattr(gpus, "_DEVICES", folder)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def with_tensorrt(repository: Path, tmp_path: Path) -> Path:
    copy = shutil.copytree(repository, tmp_path / "model_repository")
    config = read_config(copy, "condition")
    config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    (copy / "condition" / "config.pbtxt").write_text(text_format.MessageToString(config))
    return copy


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("", 0), ("1", 1), ("0,1", 2), ("0,1,2,3", 2)])
@pytest.mark.usefixtures("two_gpus")
def test_counting(visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.visible_gpus() == count


@pytest.mark.usefixtures("two_gpus")
def test_who_is_warned(repository: Path, with_tensorrt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("2.51.0", "2.56.0", "of an unknown version"):
        assert "all TensorRT engines on the first of these 2 GPUs" in str(
            gpus.engines_on_one_gpu(with_tensorrt, version)
        )
    for version in ("2.57.0", "2.75.0", "3.0.0"):
        assert gpus.engines_on_one_gpu(with_tensorrt, version) is None
    assert gpus.engines_on_one_gpu(repository, "2.51.0") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.engines_on_one_gpu(with_tensorrt, "2.51.0") is None


@pytest.mark.usefixtures("two_gpus")
def test_networks_for_any_machine(repository: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "networks (cleanliness, condition) were exported for any machine" in str(gpus.unsuitable_for_gpu(repository))
    edit(
        copy, "condition", lambda config: config.parameters["batch_sizes"].MergeFrom(ModelParameter(string_value="[]"))
    )
    assert "networks (cleanliness) were exported for any machine" in str(gpus.unsuitable_for_gpu(copy))
    edit(copy, "cleanliness", lambda config: setattr(config.instance_group[0], "kind", ModelInstanceGroup.KIND_CPU))
    assert gpus.unsuitable_for_gpu(copy) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.unsuitable_for_gpu(repository) is None


@pytest.mark.usefixtures("two_gpus")
def test_a_start_with_several_gpus(with_tensorrt: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Server(Settings(with_tensorrt, tritonserver=wrapper(tmp_path, ""), **SMALL_TRITON)):
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ") and "GPU" in line]
    assert [line[:30] for line in lines] == ["warning: Triton 2.51.0 runs al", "warning: There is a GPU here, "]
