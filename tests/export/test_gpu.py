"""What an export says for GPUs, and that all of it is served where there is none, with the same answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from car_analyzer import CarAnalyzer
from car_analyzer_export.cli.export import main
from car_analyzer_export.errors import SpecError
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.repository.config import preferred_batch_sizes
from car_analyzer_export.spec import Limits, Plan, Spec
from car_analyzer_server import Server, Settings
from tests.conftest import PINNED, SMALL_TRITON, decided

pytestmark = pytest.mark.triton

EXAMPLES = Path(__file__).parents[2] / "examples"


def demo(**changes: Any) -> Spec:
    """The demo for a GPU, in small batches."""
    limits = Limits(max_batch_size=4)
    spec = decided(Spec.from_file(EXAMPLES / "demo.toml"))
    return spec.model_copy(update={"target": "gpu", "limits": limits} | changes)


def config(repository: Path, model: str) -> Any:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan_export(demo())


@pytest.mark.parametrize(
    ("target", "largest", "expected"),
    [
        ("gpu", 64, (8, 16, 32, 64)),
        ("gpu", 48, (8, 16, 32, 48)),
        ("gpu", 8, (8,)),
        ("gpu", 5, (5,)),
        ("any", 32, (4, 8, 16, 32)),
        ("any", 1, (1,)),
    ],
)
def test_preferred_batches_end_with_the_largest(
    planned: Plan, target: str, largest: int, expected: tuple[int, ...]
) -> None:
    plan = replace(planned, target=target, limits=Limits(max_batch_size=largest))
    assert preferred_batch_sizes(plan) == expected


@pytest.mark.parametrize(("sizes", "expected"), [((1, 8, 32), (8, 32)), ((1,), (1,)), ((4,), (4,))])
def test_fixed_batches_are_preferred(planned: Plan, sizes: tuple[int, ...], expected: tuple[int, ...]) -> None:
    # If 1 were preferred, the queue would not wait for a larger batch.
    assert preferred_batch_sizes(replace(planned, limits=Limits(batch_sizes=sizes))) == expected


def test_what_is_not_said_suits_the_target(weights: Path, network_file: Path) -> None:
    head = {"weights": weights, "architecture": f"{network_file}:build", **PINNED}
    values = {"heads": {"cleanliness": head}, "photo_size": 32}
    plain = plan_export(Spec.from_values(values, "spec"))
    assert (plan_sizes(plain), plain.limits.preprocess_instances) == ((32, 128), 0)
    for_gpu = plan_export(Spec.from_values(values | {"target": "gpu"}, "spec"))
    assert (plan_sizes(for_gpu), for_gpu.limits.preprocess_instances) == ((32, 512), 8)
    said = values | {"target": "gpu", "limits": {"max_batch_size": 64, "preprocess_instances": 3}}
    own = plan_export(Spec.from_values(said, "spec"))
    assert (plan_sizes(own), own.limits.preprocess_instances) == ((64, 512), 3)


def plan_sizes(plan: Any) -> tuple[int, int]:
    return plan.limits.max_batch_size, plan.limits.max_queue_size


def test_tensorrt_needs_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpecError, match="TensorRT runs on GPUs only; set target gpu, too"):
        plan_export(demo(target="any", accelerator="tensorrt"))
    assert main([str(EXAMPLES / "demo.toml"), "--accelerator", "tensorrt", "--dry-run"]) == 1
    assert "set target gpu" in capsys.readouterr().err


def test_cuda_serves_on_a_cpu(tmp_path: Path, sample_photos: list[Path], reference: Any) -> None:
    export(plan_export(demo()), tmp_path)
    record = json.loads((tmp_path / "condition" / "1" / "export.json").read_text())
    assert record["batch_sizes"] == [1, 4]
    assert record["padding"]["batches"] == [1, 2, 3, 4]
    found = config(tmp_path, "condition")
    assert [group.count for group in found.instance_group] == [2]
    assert found.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO
    assert {name: value.string_value for name, value in found.parameters.items()} == {
        "enable_mem_pattern": "0",
        "cudnn_conv_algo_search": "1",
        "gpu_mem_limit": str(8 << 30),
        "arena_extend_strategy": "1",
        "do_copy_in_default_stream": "1",
        "batch_sizes": "[1, 4]",
    }
    assert not found.optimization.HasField("execution_accelerators")
    assert list(found.dynamic_batching.preferred_batch_size) == [4]
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    assert [warm_up.batch_size for warm_up in found.model_warmup] == [1, 4]
    with Server(Settings(tmp_path, **SMALL_TRITON)) as server:
        assert_answers(server, sample_photos, reference, 1e-3)


def test_tensorrt_falls_back_to_the_cpu_and_says_so(
    tmp_path: Path, sample_photos: list[Path], reference: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    repository, engines = tmp_path / "repository", tmp_path / "engines"
    spec = demo(accelerator="tensorrt", precision="fp16", engine_cache=str(engines))
    export(plan_export(spec), repository)
    (accelerator,) = config(repository, "condition").optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    parameters = dict(accelerator.parameters)
    assert parameters["precision_mode"] == "FP16"
    assert parameters["trt_engine_cache_path"] == parameters["trt_timing_cache_path"] == str(engines)
    assert parameters["trt_profile_min_shapes"] == "pixels:1x224x224x3"
    assert parameters["trt_profile_opt_shapes"] == parameters["trt_profile_max_shapes"] == "pixels:4x224x224x3"
    # It builds an engine for all sizes.
    assert config(repository, "condition").parameters["batch_sizes"].string_value == "[]"
    assert config(repository, "condition").parameters["prefer_nhwc"].string_value == "1"
    record = json.loads((repository / "condition" / "1" / "export.json").read_text())
    assert record["batch_sizes"] == []
    assert record["precision"]["answers_agreeing"] >= 0.995
    # TensorRT takes uint8 only to make floats of it, and that must come first.
    graph = onnx.load(repository / "condition" / "1" / "model.onnx").graph
    assert {node.op_type for node in graph.node if "pixels" in node.input} == {"Cast"}
    with Server(Settings(repository, **SMALL_TRITON)) as server:
        assert_answers(server, sample_photos, reference, 0.05)
    assert "TensorRT is not used: there is no GPU for it; the CPU is." in capfd.readouterr().err
    assert not engines.exists()


def test_int8_for_tensorrt_has_no_zero_points(tmp_path: Path) -> None:
    export(plan_export(demo(accelerator="tensorrt", precision="int8")), tmp_path)
    graph = onnx.load(tmp_path / "condition" / "1" / "model.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    for node in quantizers:
        assert not np.any(constants[node.input[2]])
        assert constants[node.input[2]].dtype == np.int8
    assert "INT8" in (tmp_path / "condition" / "config.pbtxt").read_text()


def assert_answers(server: Server, photos: list[Path], reference: Any, tolerance: float) -> None:
    with CarAnalyzer(server.grpc_url) as analyzer:
        for photo, result in zip(photos, analyzer.analyze_many(photos, concurrency=8), strict=True):
            for head, logits in reference(photo.read_bytes(), exact=True).items():
                served = getattr(result, head)
                np.testing.assert_allclose(served.logits, logits, atol=tolerance * max(1, np.abs(logits).max()))
                assert served.label in photo.name.split("_")
