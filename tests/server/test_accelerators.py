"""Our ONNX Runtime backend reads the official backend's names, and takes the best that a machine has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import car_analyzer_server

BACKEND = Path(car_analyzer_server.__file__).parent / "backends" / "onnxruntime"
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.fixture(scope="module")
def accelerators() -> Any:
    """A module that lies in no package."""
    spec = importlib.util.spec_from_file_location("accelerators", BACKEND / "accelerators.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accelerators"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["accelerators"]


@pytest.fixture
def choose(accelerators: Any) -> Any:
    return accelerators.choose


def configured(tensorrt: dict[str, str] | None = None, **parameters: str) -> dict[str, Any]:
    config: dict[str, Any] = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    if tensorrt is not None:
        accelerators = {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": tensorrt}]}
        config["optimization"] = {"execution_accelerators": accelerators}
    return config


def names(choice: Any) -> list[str]:
    return [name for name, _ in choice.providers]


def test_parameters_mean_what_the_official_backend_means_by_them(choose: Any) -> None:
    config = configured(
        cudnn_conv_algo_search="1",
        gpu_mem_limit="1000",
        arena_extend_strategy="1",
        do_copy_in_default_stream="1",
        prefer_nhwc="1",
    )
    choice = choose(config, 3, [TENSORRT, CUDA, CPU])
    assert choice.providers[0] == (
        CUDA,
        {
            "cudnn_conv_algo_search": "HEURISTIC",
            "gpu_mem_limit": "1000",
            "arena_extend_strategy": "kSameAsRequested",
            "do_copy_in_default_stream": "1",
            "prefer_nhwc": "1",
            "device_id": "3",
        },
    )
    assert names(choice) == [CUDA, CPU]
    assert choice.warnings == []


def test_tensorrt_comes_first_with_cuda_behind_it(choose: Any, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    config = configured(
        {
            "precision_mode": "FP16",
            "max_workspace_size_bytes": "5",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
        }
    )
    choice = choose(config, 0, [TENSORRT, CUDA, CPU])
    assert names(choice) == [TENSORRT, CUDA, CPU]
    assert choice.providers[0][1] == {
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "5",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "device_id": "0",
    }
    assert engines.is_dir()
    assert choice.engine_cache == engines


@pytest.mark.parametrize(
    ("device", "available", "left", "warning"),
    [
        (0, [CUDA, CPU], [CUDA, CPU], "this ONNX Runtime has none; CUDA is"),
        (0, [CPU], [CPU], "install onnxruntime-gpu"),
        (None, [TENSORRT, CUDA, CPU], [CPU], "there is no GPU for it; the CPU is"),
    ],
)
def test_what_is_missing_is_said(
    choose: Any, device: int | None, available: list[str], left: list[str], warning: str
) -> None:
    choice = choose(configured({}), device, available)
    assert names(choice) == left
    (said,) = choice.warnings
    assert warning in said


def test_a_gpu_that_triton_does_not_use_is_reported(
    accelerators: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "_GPU_DRIVER", tmp_path / "nvidiactl")
    assert accelerators.choose(configured(), None, [CUDA, CPU]).warnings == []
    (tmp_path / "nvidiactl").touch()
    choice = accelerators.choose(configured(), None, [CUDA, CPU])
    assert names(choice) == [CPU]
    (warning,) = choice.warnings
    assert warning.startswith("The GPU is not used: Triton assigned the CPU to this instance")
    assert accelerators.choose(configured(), 0, [CUDA, CPU]).warnings == []


def test_engines_that_cannot_be_kept_are_built_without_a_cache(choose: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(tmp_path / "file" / "engines")}
    choice = choose(configured(cache), 0, [TENSORRT, CUDA, CPU])
    assert choice.engine_cache is None
    assert choice.providers[0][1]["trt_engine_cache_enable"] == "0"
    assert "are not cached" in choice.warnings[0]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (configured(cudnn_conv_algo_search="7"), "'cudnn_conv_algo_search' is '7'; it can be 0 to 2"),
        (configured({"precision_mode": "FP4"}), "no precision_mode 'FP4'"),
    ],
)
def test_nonsense_is_refused(choose: Any, config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        choose(config, 0, [TENSORRT, CUDA, CPU])
