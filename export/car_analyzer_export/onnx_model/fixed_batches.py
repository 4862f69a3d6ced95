"""Rewrites a model so that its network runs with a few fixed batch sizes only.

ONNX Runtime's CUDA convolutions are planned anew whenever the batch size changes, and each keeps its last plan only. So
the model gets one copy of the network's nodes for each size, in the branches of `If` nodes. A batch is padded with
black pictures to the next size, and the logits of these are cut off. All copies share the weights.

One more copy takes larger batches as they are. Triton forms none, unless a version with a larger `max_batch_size` is
being replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

from ..errors import ExportError, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# Larger constants are weights.
_SMALL_BYTES = 1024
_COUNT = "pixels/count"


def fix_batch_sizes(source: Path, target: Path, sizes: Sequence[int]) -> None:
    """Writes a model that pads batches to fixed sizes.

    Args:
        source: A model that takes `pixels`, uint8 [batch, height, width, 3], with a dynamic batch.
        target: The file to write.
        sizes: The batch sizes, ascending.

    Raises:
        ExportError: The rewritten model is invalid.
        OSError: A file cannot be read or written.
    """
    model = onnx.load(source)
    graph = model.graph
    small = [tensor for tensor in graph.initializer if _is_small(tensor)]
    weights = [node for node in graph.node if _is_weight(node)]
    nodes = [node for node in graph.node if not _is_weight(node)]
    network = helper.make_graph(nodes, "network", graph.input, graph.output, small)
    fixed = _choose(network, sizes)
    for tensor in small:
        graph.initializer.remove(tensor)
    # Their shapes have a dynamic batch.
    del graph.node[:], graph.value_info[:]
    graph.node.append(helper.make_node("Shape", ["pixels"], [_COUNT], start=0, end=1))
    graph.node.extend([*weights, *fixed.node])
    graph.initializer.extend(fixed.initializer)
    try:
        onnx.save(model, target)
        onnx.checker.check_model(target, full_check=True)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"The network cannot be written with fixed batch sizes: {reason(error)}.") from error


def _choose(network: onnx.GraphProto, sizes: Sequence[int], suffix: str = "") -> onnx.GraphProto:
    """A graph that runs the network with the smallest size into which the batch fits.

    Args:
        network: The network, with a dynamic batch.
        sizes: The batch sizes.
        suffix: For the names of the outputs: those of a branch must differ from those of the graph around it.
    """
    if not sizes:
        return _copy(network, "/any", "pixels")
    size, *larger = sizes
    limit, fits = f"pixels/limit_{size}", f"pixels/fits_{size}"
    outputs = _suffixed(network.output, suffix)
    nodes = [
        helper.make_node("LessOrEqual", [_COUNT, limit], [fits]),
        helper.make_node(
            "If",
            [fits],
            [output.name for output in outputs],
            then_branch=_padded(network, size),
            else_branch=_choose(network, larger, f"/over_{size}"),
        ),
    ]
    return helper.make_graph(nodes, f"choice_{size}", [], outputs, [_integers(limit, size)])


def _padded(network: onnx.GraphProto, size: int) -> onnx.GraphProto:
    """A graph that pads the batch to a size, runs the network, and cuts off the logits of the padding."""
    photo = [dimension.dim_value for dimension in network.input[0].type.tensor_type.shape.dim[1:]]
    named = {name: f"pixels/{name}_{size}" for name in ("size", "photo", "shape", "zero", "missing", "rest", "black")}
    joined, padded = f"pixels/joined_{size}", f"pixels/padded_{size}"
    run = _copy(network, f"/{size}", padded)
    outputs = _suffixed(run.output, "/cut")
    black = helper.make_tensor("black", onnx.TensorProto.UINT8, [1], [0])
    nodes = [
        helper.make_node("Sub", [named["size"], _COUNT], [named["missing"]]),
        helper.make_node("Concat", [named["missing"], named["photo"]], [named["rest"]], axis=0),
        helper.make_node("ConstantOfShape", [named["rest"]], [named["black"]], value=black),
        helper.make_node("Concat", ["pixels", named["black"]], [joined], axis=0),
        # Changes nothing, but from here on shape inference finds constants.
        helper.make_node("Reshape", [joined, named["shape"]], [padded]),
        *run.node,
        *(
            helper.make_node("Slice", [whole.name, named["zero"], _COUNT, named["zero"]], [output.name])
            for whole, output in zip(run.output, outputs, strict=True)
        ),
    ]
    constants = {"size": [size], "photo": photo, "shape": [size, *photo], "zero": [0]}
    integers = [_integers(named[name], *values) for name, values in constants.items()]
    return helper.make_graph(nodes, f"batch_{size}", [], outputs, [*run.initializer, *integers])


def _copy(network: onnx.GraphProto, suffix: str, pixels: str) -> onnx.GraphProto:
    """A copy of the network with a suffix on all names that it defines, which reads other pixels."""
    copy = onnx.GraphProto()
    copy.CopyFrom(network)
    del copy.input[:]
    # ONNX's shape inference mixes up values of the same name in two branches.
    _rename(copy, {name: name + suffix for name in _defined(network)} | {"pixels": pixels})
    return copy


def _defined(graph: onnx.GraphProto) -> set[str]:
    names = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names |= {name for name in node.output if name}
        names |= {name for inner in _subgraphs(node) for name in _defined(inner)}
    return names


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in _subgraphs(node):
            _rename(inner, names)
    for value in (*graph.initializer, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def _suffixed(values: Iterable[onnx.ValueInfoProto], suffix: str) -> list[onnx.ValueInfoProto]:
    copies = onnx.GraphProto(output=values).output
    for copy in copies:
        copy.name += suffix
    return list(copies)


def _integers(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)


def _is_small(tensor: onnx.TensorProto) -> bool:
    """Whether it belongs into each branch: shapes for shape inference, scales for ONNX Runtime's int8 optimisations."""
    return not tensor.dims or (tensor.data_type == onnx.TensorProto.INT64 and tensor.ByteSize() <= _SMALL_BYTES)


def _is_weight(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and node.ByteSize() > _SMALL_BYTES
