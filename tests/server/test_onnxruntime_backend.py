"""Our ONNX Runtime backend answers every request of a batch with its own rows, whatever ran before.

The code for GPUs runs here with the device `cpu`.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import car_analyzer_server
from car_analyzer_export.onnx_model.fixed_batches import fix_batch_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = Path(car_analyzer_server.__file__).parent / "backends" / "onnxruntime"
SIDE = 8
SIZES = (1, 2, 7, 8, 9, 31, 32)
# Larger and smaller batches in turn, and each size more than once.
ORDER = (32, 1, 31, 2, 9, 8, 7, 32, 7, 8, 1, 9, 31, 2, 1, 32, 32, 8, 8)


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> Any:
        return self.array


class Request:
    def __init__(self, pixels: Any, outputs: set[str]) -> None:
        self.inputs, self.outputs = {"pixels": Tensor("pixels", pixels)}, outputs

    def requested_output_names(self) -> set[str]:
        return self.outputs


@pytest.fixture(scope="module")
def backend() -> Iterator[Any]:
    """The modules `model` and `bound_session` as Triton imports them, with stand-ins for what only its process has."""
    triton = types.ModuleType("triton_python_backend_utils")
    triton.__dict__.update(
        Tensor=Tensor,
        InferenceResponse=lambda tensors: {tensor.name: tensor.array for tensor in tensors},
        get_input_tensor_by_name=lambda request, name: request.inputs[name],
        Logger=types.SimpleNamespace(log_info=print, log_warn=print),
    )
    names = ("accelerators", "bound_session", "guard", "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BACKEND))
        patch.setitem(sys.modules, triton.__name__, triton)
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with a convolution and the outputs `logits` and `map`: `plain`, and `padded` to fixed batch sizes."""
    folder = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(0)
    constants = {
        "kernel": random.normal(size=(5, 3, 3, 3)).astype(np.float32),
        "weights": random.normal(size=(5, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["images"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["images", "kernel"], ["map"]),
        helper.make_node("ReduceMax", ["map"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
    ]
    shapes = {"logits": (2,), "map": (5, SIDE - 2, SIDE - 2)}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shapes[name]]) for name in shapes],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for name in ("plain", "padded"):
        (folder / name / "1").mkdir(parents=True)
    onnx.save(model, folder / "plain" / "1" / "model.onnx")
    fix_batch_sizes(folder / "plain" / "1" / "model.onnx", folder / "padded" / "1" / "model.onnx", [1, 8, 32])
    return folder


def on_cpu(model: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def photos(batch: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["plain", "padded"])
@pytest.mark.parametrize("order", [ORDER, tuple(range(1, 41)) * 2], ids=["few sizes", "more sizes than bindings"])
def test_bound_runs_answer_like_plain_ones(backend: Any, repository: Path, name: str, order: tuple[int, ...]) -> None:
    session = on_cpu(repository / name / "1" / "model.onnx")
    bound = backend.bound_session.BoundSession(session, "cpu", 0)
    wanted = (["logits"], ["map", "logits"], ["logits", "map"], ["map"])
    answers = []
    for number, batch in enumerate(order):
        outputs, inputs = wanted[number % len(wanted)], {"pixels": photos(batch, number)}
        expected = [array.copy() for array in session.run(outputs, inputs)]
        found = bound.run(outputs, inputs)
        assert_equal(found, expected)
        answers.append((found, expected))
    for found, expected in answers:
        assert_equal(found, expected)


def test_bound_runs_after_a_failed_one(backend: Any, repository: Path) -> None:
    session = on_cpu(repository / "plain" / "1" / "model.onnx")
    bound = backend.bound_session.BoundSession(session, "cpu", 0)
    for seed, batch in enumerate((2, 8, 2)):
        pixels = photos(batch, seed)
        for wrong in (pixels[:, 1:], pixels.astype(np.float32), pixels.view(np.int8)):
            with pytest.raises(Exception, match="input"):
                bound.run(["logits"], {"pixels": wrong})
        assert_equal(bound.run(["logits"], {"pixels": pixels}), session.run(["logits"], {"pixels": pixels}))


def test_bound_outputs_whose_shape_depends_on_the_pixels(backend: Any) -> None:
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["pixels"], ["places"])],
        "network",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3])],
        [helper.make_tensor_value_info("places", TensorProto.INT64, [2, "count"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = on_cpu(model.SerializeToString())
    bound = backend.bound_session.BoundSession(session, "cpu", 0)
    for pixels in ([[0, 1, 0]], [[1, 1, 1]], [[0, 0, 0]], [[0, 0, 1]]):
        inputs = {"pixels": np.array(pixels, np.uint8)}
        assert_equal(bound.run(["places"], inputs), session.run(["places"], inputs))


@pytest.mark.parametrize("name", ["plain", "padded"])
@pytest.mark.parametrize("bound", [False, True], ids=["CPU", "bound"])
def test_each_request_gets_its_own_rows(backend: Any, repository: Path, name: str, bound: bool) -> None:
    session = on_cpu(repository / name / "1" / "model.onnx")
    model = backend.model.TritonPythonModel()
    config = {"input": [{"name": "pixels"}], "output": [{"name": "logits"}, {"name": "map"}]}
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(repository / name),
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_instance_name": name,
        }
    )
    if bound:
        model._session = backend.bound_session.BoundSession(session, "cpu", 0)
    wanted: tuple[set[str], ...] = ({"logits"}, {"logits", "map"}, {"map"})
    batches = [[1] * batch for batch in ORDER] + [[batch] for batch in SIZES] + [[3, 1, 28], [2, 5], [1, 30], [4, 4]]
    for number, sizes in enumerate(batches):
        pixels = photos(sum(sizes), number)
        parts = np.split(pixels, np.cumsum(sizes)[:-1])
        asked = [wanted[(number + place) % (1 if number % 2 else 3)] for place in range(len(parts))]
        responses = model.execute([Request(part.copy(), names) for part, names in zip(parts, asked, strict=True)])
        answers = dict(zip(("logits", "map"), session.run(["logits", "map"], {"pixels": pixels}), strict=True))
        assert [set(response) for response in responses] == asked
        first = 0
        for size, response in zip(sizes, responses, strict=True):
            for output, rows in response.items():
                np.testing.assert_array_equal(rows, answers[output][first : first + size])
            first += size
