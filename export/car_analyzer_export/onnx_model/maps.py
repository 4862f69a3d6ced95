"""Adds class activation maps (arXiv:1512.04150) to an ONNX model: what each place of the photo adds to each logit.

In many networks the last feature map is averaged, and a linear layer makes the logits of the average. The same layer
without its bias, applied to each place of the feature map, gives the map of each logit: its average, plus the bias, is
the logit. The new nodes share the layer's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ..spec import HeadPlan, NetworkPlan

# These change only the shape of pooled features, or round them for int8.
_PASSING = frozenset(
    ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear")
)
_SHIFTS = frozenset(("Add", "Sub"))
_LINEAR = frozenset(("Gemm", "MatMul", "Mul", "Div", "Gather", "GatherND", "Slice", "Split", "Transpose", "Cast"))
# The features may be the second operand of these.
_SECOND = {"Add": [1], "Mul": [1]}
_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_PICTURES = 7
# Excludes a class from a softmax.
_LEAST = -1e30
# The steps of half precision, as a share.
_HALF_STEP = 2**-10
# How far a map's average and the logit may differ, apart from the bias, as a share of the largest logit. int8 rounds
# the average, but not the map.
_TOLERANCES = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.2}


def add_maps(
    file: Path, plan: NetworkPlan, pixels: npt.NDArray[np.uint8], precision: str = "fp32"
) -> dict[str, list[int]]:
    """Gives a model one more output for each head that has a class activation map: float32 [batch, logits, h, w].

    A head has one if its logits are a linear layer of the averages over a feature map: the map's averages and the
    logits differ by the bias. If the network gives probabilities, the map is that of the logits before its softmax or
    sigmoid. If a head joins classes, its map is the mean of their maps, weighted by their probabilities.

    The logits stay the same, bit by bit; in fp16 on a CPU they may change by a rounding step. A map that would change
    them, or is not what they are made of, is left out.

    Args:
        file: The model, with a dynamic batch.
        plan: Its network.
        pixels: Pictures to compare logits and maps on, uint8 [count, height, width, 3]; a few are used.
        precision: Of the model.

    Returns:
        Head name → the shape of its map, without the batch.

    Raises:
        OSError: The file cannot be read or written.
    """
    names = [plan.output_name(head) for head in plan.heads]
    pictures = {"pixels": pixels[:_PICTURES]}
    expected: list[Any] = []
    maps: dict[str, list[int]] = {}
    draft = file.with_name("maps.onnx")
    for position, head in enumerate(plan.heads):
        model = onnx.load(file)
        added = _Graph(model).add_map(plan, head)
        if added is None:
            continue
        expected = expected or _run(file, names, pictures) or []
        onnx.save(model, draft)
        found = _run(draft, names, pictures)
        if found is None or not all(_same(one, other, precision) for one, other in zip(found, expected, strict=True)):
            continue
        model.graph.output.extend(added.compared)
        onnx.save(model, probe := file.with_name("probe.onnx"))
        compared = _run(probe, [value.name for value in added.compared], pictures)
        probe.unlink()
        if compared and _is_right(head, found[position], compared[0], compared[1], _TOLERANCES[precision]):
            draft.replace(file)
            maps[head.name] = added.shape
    draft.unlink(missing_ok=True)
    return maps


def _run(file: Path, names: list[str], inputs: dict[str, Any]) -> list[Any] | None:
    """The outputs of a model; None if it is invalid: the shapes behind the pool are not what they seem to be."""
    try:
        onnx.checker.check_model(file, full_check=True)
        outputs: list[Any] = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(names, inputs)
    except Exception:  # noqa: BLE001 - each of the checkers has exceptions of its own
        return None
    return outputs


def _same(logits: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], precision: str) -> bool:
    if precision == "fp16":
        # On a CPU, ONNX Runtime leaves out the rounding of tensors that only one node reads.
        return bool(np.abs(logits - expected).max() <= _HALF_STEP * max(1.0, float(np.abs(expected).max())))
    return bool(np.array_equal(logits, expected))


def _is_right(
    head: HeadPlan,
    logits: npt.NDArray[np.float32],
    classes: npt.NDArray[np.float32],
    maps: npt.NDArray[np.float32],
    tolerance: float,
) -> bool:
    """Whether the classes are the averages of their maps plus a bias, and the head's logits are made of the classes."""
    accepted = tolerance * max(1.0, float(np.abs(classes).max()), float(np.abs(logits).max()))
    made = replace(head, output=None, probabilities=False).read(torch.from_numpy(classes)).numpy()
    others = logits - made
    if head.probabilities and head.activation == "softmax":  # these change by the same number for all labels
        others = others - others.mean(axis=1, keepdims=True)
    biases = classes - maps.mean((2, 3))
    # Not `difference > accepted`: NaN must fail, too.
    return bool(np.abs(others).max() <= accepted and np.ptp(biases, axis=0).max() <= accepted)


@dataclass(frozen=True)
class _Added:
    """A map that was added: its shape, and the outputs with a head's classes and their maps, to compare."""

    shape: list[int]
    compared: list[onnx.ValueInfoProto]


@dataclass(frozen=True)
class _Pool:
    """A feature map that is averaged over all its places."""

    features: str
    channels: int
    height: int
    width: int


def _joined(name: str, classes: str, maps: str) -> list[onnx.NodeProto]:
    """The maps of labels that join classes: the mean of their classes' maps, weighted by the classes' probabilities.

    The weights are the derivatives of a label's logit, which is a logarithm of the sum of exponentials.
    """
    steps = [
        ("Unsqueeze", [classes, f"{name}/axis"], "each"),
        ("Add", [f"{name}/each", f"{name}/masks"], "masked"),
        ("Softmax", [f"{name}/masked"], "weights"),
        ("Reshape", [maps, f"{name}/flat_shape"], "flat"),
        ("MatMul", [f"{name}/weights", f"{name}/flat"], "joined"),
    ]
    nodes = [helper.make_node(kind, inputs, [f"{name}/{output}"]) for kind, inputs, output in steps]
    return [*nodes, helper.make_node("Reshape", [f"{name}/joined", f"{name}/joined_shape"], [name])]


def _floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape])


@dataclass(frozen=True)
class _Layer:
    """A linear node behind the pool, the position of the input that is not constant, and the output that is read."""

    node: onnx.NodeProto
    position: int
    output: str

    def without_bias(self, features: str, prefix: str) -> onnx.NodeProto:
        """A copy of the node that takes other features; the names of its outputs get a prefix."""
        copy = onnx.NodeProto()
        copy.CopyFrom(self.node)
        if copy.op_type == "Gemm":
            del copy.input[2:]
        copy.input[self.position] = features
        copy.output[:] = [f"{prefix}/{output}" for output in copy.output]
        return copy


class _Graph:
    """The graph of a model, which is changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._makers = {output: node for node in model.graph.node for output in node.output}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self._shapes = {
            value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            for value in (*inferred.value_info, *inferred.output)
        }

    def add_map(self, plan: NetworkPlan, head: HeadPlan) -> _Added | None:
        """Adds the nodes and the output of a head's map, if it has one."""
        layers: list[_Layer] = []
        source, pool = self._find(plan, head, layers)
        if pool is None:
            return None
        name = plan.map_name(head)
        size = [pool.height, pool.width]
        classes, maps, rows, last = (f"{name}/{part}" for part in ("classes", "classes_map", "rows", "features"))
        constants = {"rows_shape": [-1, pool.channels], "map_shape": [-1, *size, head.classes]}
        nodes = [
            helper.make_node("Transpose", [pool.features], [rows], perm=_CHANNELS_LAST),
            helper.make_node("Reshape", [rows, f"{name}/rows_shape"], [last]),
        ]
        for layer in reversed(layers):
            nodes.append(layer.without_bias(last, name))
            last = f"{name}/{layer.output}"
        nodes += [
            helper.make_node("Reshape", [last, f"{name}/map_shape"], [f"{name}/channels_last"]),
            helper.make_node("Transpose", [f"{name}/channels_last"], [f"{name}/channels_first"], perm=_CHANNELS_FIRST),
            helper.make_node("Cast", [f"{name}/channels_first"], [maps], to=onnx.TensorProto.FLOAT),
            helper.make_node("Cast", [source], [classes], to=onnx.TensorProto.FLOAT),
        ]
        if head.groups:
            nodes += _joined(name, classes, maps)
            constants |= {"flat_shape": [-1, head.classes, size[0] * size[1]], "joined_shape": [-1, head.logits, *size]}
            constants |= {"axis": [1]}
            masks = np.full((head.logits, head.classes), _LEAST, np.float32)
            for label, group in enumerate(head.groups):
                masks[label, list(group)] = 0
            self._graph.initializer.append(numpy_helper.from_array(masks, f"{name}/masks"))
        else:
            nodes.append(helper.make_node("Identity", [maps], [name]))
        for number, node in enumerate(nodes):
            node.name = f"{name}/{number}"
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(
            helper.make_tensor(f"{name}/{key}", onnx.TensorProto.INT64, [len(value)], value)
            for key, value in constants.items()
        )
        shape = [head.logits, *size]
        self._graph.output.append(_floats(name, *shape))
        return _Added(shape, [_floats(classes, head.classes), _floats(maps, head.classes, *size)])

    def _find(self, plan: NetworkPlan, head: HeadPlan, layers: list[_Layer]) -> tuple[str, _Pool | None]:
        """Finds what a head's logits are made of: the network's classes, and the pool that these come from.

        The classes are the logits, unless the network gives probabilities, or the head joins classes.
        """
        wanted = [plan.output_name(head)]
        for name in wanted:
            if self._shapes.get(name, [])[1:] == [head.classes]:
                layers.clear()
                if (pool := self._trace(name, layers)) is not None:
                    return name, pool
            if (head.groups or head.probabilities) and name in self._makers:
                wanted += [part for part in self._makers[name].input if part and part not in wanted]
        return "", None

    def _trace(self, name: str, layers: list[_Layer]) -> _Pool | None:
        """Follows a tensor back to the pool; collects the linear layers on the way, the last one first."""
        while (node := self._makers.get(name)) is not None:
            if (pool := self._pool(node)) is not None:
                return pool
            inputs = [position for position, part in enumerate(node.input) if part and not self._is_constant(part)]
            if node.op_type in _PASSING:
                inputs = [0]
            elif node.op_type not in _LINEAR | _SHIFTS or inputs not in ([0], _SECOND.get(node.op_type)):
                return None
            elif node.op_type in _LINEAR:
                layers.append(_Layer(node, inputs[0], name))
            name = node.input[inputs[0]]
        return None

    def _is_constant(self, name: str) -> bool:
        if name in self._initializers:
            return True
        node = self._makers.get(name)
        return node is not None and all(self._is_constant(part) for part in node.input if part)

    def _pool(self, node: onnx.NodeProto) -> _Pool | None:
        source = self._averaged(node)
        shape = self._shapes.get(source or "", [])
        # A map of one place says nothing.
        if source is None or len(shape) != 4 or not all(shape[1:]) or shape[2] * shape[3] == 1:
            return None
        return _Pool(source, *shape[1:])

    def _averaged(self, node: onnx.NodeProto) -> str | None:
        """What a node averages over height and width; None for other nodes."""
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        source = str(node.input[0]) if node.input else ""
        shape = self._shapes.get(source, [])
        if node.op_type == "GlobalAveragePool":
            return source
        if node.op_type == "AveragePool":
            whole = list(attributes["kernel_shape"]) == shape[2:] and not any(attributes.get("pads", ()))
            return source if whole else None
        if node.op_type != "ReduceMean":
            return None
        axes = attributes.get("axes", self._value(node.input[1]) if len(node.input) > 1 else None)
        if axes is None or not shape:
            return None
        averaged = {int(axis) % len(shape) for axis in axes}
        if len(shape) == 4 and averaged == {2, 3}:
            return source
        before = self._makers.get(source)
        if len(shape) == 3 and averaged == {2} and before is not None and before.op_type == "Reshape":
            return str(before.input[0])  # height and width were flattened
        return None

    def _value(self, name: str) -> list[int] | None:
        node = self._makers.get(name)
        value: Any = self._initializers.get(name)
        if node is not None and node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        return None if value is None else [int(one) for one in np.ravel(value)]
