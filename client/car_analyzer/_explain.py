"""Explains a photo's answers with a Triton: class activation maps where the export has them, else by occlusion."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ._explanation import Explanation
from ._geometry import Frame, View, read_frame
from ._occlusion import batches, fall_maps
from ._transports import ExportMismatchError
from .errors import ConfigurationError, ModelNotReadyError, OverloadedError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from ._results import Head
    from ._transports import Answer, Deadline, Transport
    from .heads import HeadSpec, ServedModel

PREPROCESS = "preprocess"
# Another batch, or another precision, changes a logit by less.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Source:
    """Where a head's explanation comes from, as the ensemble's config describes it.

    Attributes:
        network: The head's network.
        output: The network's output that has the logits.
        pixels: The preprocess step's output that the network takes.
        view: How the photo becomes these pixels.
        map: The output of the explaining ensemble that has the class activation map; None if there is none.
    """

    network: str
    output: str
    pixels: str
    view: View
    map: str | None


class Explainer:
    """Explains the answers for one photo.

    Args:
        transport: To the Triton.
        model: The ensemble's name.
        served: The export that answered.
        photo: The photo that was analysed.
        request_id: Appears in Triton's logs and traces.
        deadline: For all requests together.

    Raises:
        ConfigurationError: The export does not say how to explain its answers.
    """

    def __init__(
        self, transport: Transport, model: str, served: ServedModel, photo: bytes, request_id: str, deadline: Deadline
    ) -> None:
        self._transport = transport
        self._model = model
        self._served = served
        self._photo = photo
        self._request_id = request_id
        self._deadline = deadline
        self._sources = parse_sources(served.explain, model)

    async def explain(self, heads: Mapping[str, Head]) -> dict[str, Head]:
        """The heads with their explanations.

        Raises:
            ConfigurationError: The export's description does not fit its heads.
            OverloadedError: Another export took this one's place meanwhile; a new attempt will explain its answer.
            PhotoError: The photo's size cannot be read on this side.
        """
        if missing := heads.keys() - self._sources.keys():
            raise unexplainable(self._model, f"it does not say how to explain {', '.join(sorted(missing))}")
        frame = await asyncio.to_thread(read_frame, self._photo)
        sources = {name: self._sources[name] for name in heads}
        try:
            maps = await self._class_activation_maps(sources) | await self._occlusion_maps(sources, heads)
        except ExportMismatchError as error:
            raise _replaced() from error
        return {
            spec.name: replace(
                heads[spec.name],
                explanation=_explanation(spec, heads[spec.name], sources[spec.name], maps[spec.name], frame),
            )
            for spec in self._served.heads
        }

    async def _class_activation_maps(self, sources: Mapping[str, Source]) -> dict[str, npt.NDArray[np.float32]]:
        wanted = {name: source.map for name, source in sources.items() if source.map is not None}
        if not wanted:
            return {}
        answer = await self._send_photo(f"{self._model}_explain")
        return {name: _array(answer, output, 4)[0] for name, output in wanted.items()}

    async def _occlusion_maps(
        self, sources: Mapping[str, Source], heads: Mapping[str, Head]
    ) -> dict[str, npt.NDArray[np.float32]]:
        names = [name for name, source in sources.items() if source.map is None]
        if not names:
            return {}
        try:
            # The newest version that is loaded may be one that is only being published.
            pixels = await self._send_photo(PREPROCESS, self._served.version or "")
        except ModelNotReadyError as error:  # it has just answered
            raise _replaced() from error
        maps: dict[str, npt.NDArray[np.float32]] = {}
        for network in dict.fromkeys(sources[name].network for name in names):
            mine = [name for name in names if sources[name].network == network]
            outputs = [sources[name].output for name in mine]
            prepared = _array(pixels, sources[mine[0]].pixels, 4)[0].astype(np.uint8)
            for name, logits in zip(mine, await self._logits(network, prepared, outputs), strict=True):
                if not np.allclose(logits[0], heads[name].logits, rtol=TOLERANCE, atol=TOLERANCE):
                    raise _replaced()
                maps[name] = fall_maps(logits)
        return maps

    async def _logits(
        self, network: str, pixels: npt.NDArray[np.uint8], outputs: Iterable[str]
    ) -> list[npt.NDArray[np.float32]]:
        """Each output's logits for the photo and its covered copies: [1 + windows, logits]."""
        version = self._served.version or ""
        try:
            config = await self._transport.model_config(network, version, timeout=self._time_left())
            answers = [
                await self._transport.infer_pixels(
                    network, version, batch.tobytes(), batch.shape, timeout=self._time_left()
                )
                for batch in batches(pixels, config.max_batch_size)
            ]
        except ModelNotReadyError as error:  # it has just answered
            raise _replaced() from error
        return [np.concatenate([_array(answer, output, 2) for answer in answers]) for output in outputs]

    async def _send_photo(self, model: str, version: str = "") -> Answer:
        return await self._transport.infer(
            model,
            self._photo,
            timeout=self._time_left(),
            request_id=self._request_id,
            export_id=self._served.export_id,
            version=version,
        )

    def _time_left(self) -> float:
        if not self._deadline.left:
            raise self._deadline.error("explaining the answer")
        return self._deadline.left


def parse_sources(text: str | None, model: str) -> dict[str, Source]:
    """Read the parameter `explain` of the ensemble's config.

    Args:
        text: JSON: head → {network, output, pixels, view, map}; None if it is missing.
        model: The ensemble's name, for messages.

    Raises:
        ConfigurationError: It is missing, or has a format that this client does not know.
    """
    if text is None:
        raise unexplainable(model, "it comes from an earlier version")
    try:
        return {name: _parse_source(fields) for name, fields in json.loads(text).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise unexplainable(model, f"its description cannot be read: {error!r}") from error


def unexplainable(model: str, reason: str) -> ConfigurationError:
    """The error for a model that cannot explain its answers."""
    message = f"the model {model!r} cannot explain its answers, since {reason}; export again with this version"
    return ConfigurationError(message, code="model.not_explainable")


def _parse_source(fields: Any) -> Source:
    shown = {name: fields["view"][name] for name in ("width", "height", "shortest_edge", "exif_rotation")}
    return Source(fields["network"], fields["output"], fields["pixels"], View(**shown), fields["map"])


def _array(answer: Answer, output: str, dimensions: int) -> npt.NDArray[np.float32]:
    tensor = answer.outputs.get(output)
    if tensor is None or len(tensor.shape) != dimensions:
        shape = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
        raise ServerError(f"cannot explain the answer: the output {output!r} {shape}")
    if isinstance(tensor.values, bytes):
        return np.frombuffer(tensor.values, np.uint8).reshape(tensor.shape)  # type: ignore[return-value]
    return np.array(tensor.values, np.float32).reshape(tensor.shape)


def _explanation(
    spec: HeadSpec, head: Head, source: Source, maps: npt.NDArray[np.float32], frame: Frame
) -> Explanation:
    if len(maps) != spec.classes:
        raise ServerError(f"cannot explain {spec.name}: there are {len(maps)} maps for {spec.classes} logits")
    method: Literal["cam", "occlusion"] = "occlusion" if source.map is None else "cam"
    if spec.activation == "sigmoid":
        maps = np.stack([-maps[0], maps[0]])
    if source.view.exif_rotation:
        box = source.view.box(frame.upright_size)
    else:
        box = frame.turn(source.view.box((frame.width, frame.height)))
        maps = np.stack([frame.turn_map(values) for values in maps])
    likeliest = max(head.probabilities, key=head.probabilities.__getitem__)
    labels = head.labels or ((head.label,) if head.label in spec.labels else (likeliest,))
    return Explanation(
        method, labels, dict(zip(spec.labels, maps, strict=True)), box, frame.upright_size, frame.orientation
    )


def _replaced() -> OverloadedError:
    return OverloadedError("the model was replaced while its answer was explained")
