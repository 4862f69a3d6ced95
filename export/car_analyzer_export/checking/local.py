"""Runs the served models here with ONNX Runtime, so that other preprocessing can be tried.

The normalisation is a multiplication and an addition inside the ONNX graph. Their constants become inputs here, so that
another normalisation is computed exactly, not by changing 8-bit pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf import text_format
from onnx import numpy_helper
from tritonclient.grpc import model_config_pb2 as pb

from car_analyzer.heads import HeadSpec, parse_heads

from ..preprocess.view import View
from ..spec import ENSEMBLE, PREPROCESS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from car_analyzer import Head

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

_CONSTANTS = ("scale", "shift")


class LocalError(Exception):
    """The models cannot be run here; the message is the reason, without a full stop."""


@dataclass(frozen=True)
class LocalNetwork:
    """One exported network.

    Attributes:
        name: Its name, which is also its table's in the spec.
        view: How photos are prepared for it.
        normalisation: Mean and std in RGB order.
        channels: `RGB` or `BGR`.
        heads: Its heads, each with the name of its output.
        combined: The heads whose logits are sums over the network's classes.
        session: Takes `pixels`, and `scale` and `shift` if `adjustable`.
        adjustable: Other normalisations and channel orders can be tried.
    """

    name: str
    view: View
    normalisation: Normalisation
    channels: str
    heads: dict[HeadSpec, str]
    combined: frozenset[str]
    session: Any
    adjustable: bool

    def logits(
        self, pixels: npt.NDArray[np.uint8], channels: str, normalisation: Normalisation
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Head → logits, float32 [batch, logits].

        Args:
            pixels: uint8 RGB, [batch, height, width, 3].
            channels: The channel order of the network's input.
            normalisation: Mean and std in RGB order.
        """
        inputs: dict[str, Any] = {"pixels": pixels}
        if self.adjustable:
            # The graph converts RGB to its own order; reversed pixels end up in the other order.
            ordered = pixels if channels == self.channels else pixels[..., ::-1]
            scale, shift = _constants(normalisation)
            inputs = {"pixels": np.ascontiguousarray(ordered), "scale": scale, "shift": shift}
        found = self.session.run(list(self.heads.values()), inputs)
        return {head.name: rows for head, rows in zip(self.heads, found, strict=True)}


def open_networks(repository: Path, served: Mapping[str, Head] | None, wanted: Collection[str]) -> list[LocalNetwork]:
    """Loads networks of the version that a repository's configurations name.

    Args:
        repository: The model repository.
        served: The heads of the server; None without one.
        wanted: Only networks with one of these heads are loaded.

    Raises:
        LocalError: They are missing, cannot be loaded, or are not those that are served.
    """
    try:
        text = (repository / ENSEMBLE / "config.pbtxt").read_text(encoding="utf-8")
        config = text_format.Parse(text, pb.ModelConfig())
        heads = parse_heads(config.parameters["heads"].string_value or None, ENSEMBLE)
        if served is not None:
            _check_same(repository, heads, served)
        steps = [step for step in config.ensemble_scheduling.step if step.model_name != PREPROCESS]
        outputs = {head.output for head in heads if head.name in wanted}
        return [_open(repository, step, heads) for step in steps if outputs & set(step.output_map.values())]
    except LocalError:
        raise
    except FileNotFoundError as error:
        raise LocalError(f"{error.filename} is missing") from error
    except Exception as error:  # the error classes of protobuf and ONNX Runtime have no common base
        raise LocalError(f"the models in {repository} cannot be loaded: {error}".rstrip(".")) from error


def _check_same(repository: Path, heads: Iterable[HeadSpec], served: Mapping[str, Head]) -> None:
    if [(head.name, head.labels) for head in heads] != [
        (name, tuple(head.probabilities)) for name, head in served.items()
    ]:
        raise LocalError(f"the heads or labels in {repository} are not those of the server")


def _open(repository: Path, step: Any, heads: Iterable[HeadSpec]) -> LocalNetwork:
    folder = repository / step.model_name / str(step.model_version)
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    outputs = {ensemble: own for own, ensemble in step.output_map.items()}
    normalisation = (tuple(map(float, facts["mean"])), tuple(map(float, facts["std"])))
    session, adjustable = _load(folder / "model.onnx", _constants(normalisation))
    return LocalNetwork(
        name=step.model_name,
        view=View(**facts["view"]),
        normalisation=normalisation,
        channels=facts["channels"],
        heads={head: outputs[head.output] for head in heads if head.output in outputs},
        combined=frozenset(name for name, head in facts["heads"].items() if head.get("groups")),
        session=session,
        adjustable=adjustable,
    )


def _load(file: Path, expected: tuple[npt.NDArray[np.float32], ...]) -> tuple[Any, bool]:
    """A session, and whether the constants of the normalisation were found and are inputs of it."""
    model = onnx.load(file)
    found = {one.name: one for one in model.graph.initializer if one.name in _CONSTANTS}
    adjustable = len(found) == len(_CONSTANTS) and all(
        found[name].dims == [3, 1, 1] and np.allclose(numpy_helper.to_array(found[name]), value, rtol=1e-4, atol=1e-6)
        for name, value in zip(_CONSTANTS, expected, strict=True)
    )
    if adjustable:
        for name in _CONSTANTS:
            model.graph.initializer.remove(found[name])
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3, 1, 1]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, adjustable


def _constants(normalisation: Normalisation) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Scale and shift in the form of the graph's constants."""
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in normalisation)
    return 1 / (255 * std), -mean / std
