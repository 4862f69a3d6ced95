"""Checks the networks of a plan on labelled photos before they are published, in PyTorch, from the photos' bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from car_analyzer import Analysis
from car_analyzer.drift import LEAST_PHOTOS, photo_statistics

from ..errors import CheckError, SpecError
from ..onnx_model.answers import head_spec, read_answers
from ..onnx_model.graph import PixelsToLogits
from ..preprocess.photo import InvalidPhotoError, Photo
from ..preprocess.view import ViewError, least_side_for
from .alternatives import BATCH, ServedDiffersError, choose_photos, fit_all
from .answers import Answer, drift_reference
from .check import conclusions, none_answered, unchecked
from .hypotheses import judge
from .labelled import find_labelled, printable
from .local import LocalNetwork
from .outcome import Checked, Outcome
from .tally import interval, tally
from .text import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from car_analyzer import Head
    from car_analyzer.heads import HeadSpec

    from ..preprocess.view import View
    from ..spec import NetworkPlan, Plan
    from .hypotheses import Judgement
    from .labelled import LabelledPhoto
    from .tally import Tally


def check_before_publishing(plan: Plan, source: Path, minimum: float | None, step: Callable[[str], object]) -> Checked:
    """Runs `check_plan`; returns an outcome that can be pickled.

    Raises:
        SpecError: There is nothing to check.
    """
    try:
        outcome, refused = check_plan(plan, source, minimum, step)
    except CheckError as error:
        raise SpecError(f"--check: {error}") from error
    heads = {name: {"photos": found.photos, "right": found.right} for name, found in outcome.tallies.items()}
    drift = drift_reference(outcome.answers)
    outcome.notes.append(
        f"Recorded the statistics of {drift.photos} photos, for `car-analyzer gateway --drift`."
        if drift
        else f"Too few photos to record their statistics for `car-analyzer gateway --drift`: {LEAST_PHOTOS} are needed."
    )
    return Checked(as_text(outcome), outcome.to_dict(), heads, refused, drift)


def check_plan(
    plan: Plan, source: Path, minimum: float | None = None, step: Callable[[str], object] = lambda _text: None
) -> tuple[Outcome, list[str]]:
    """Runs the networks of a plan on labelled photos.

    Args:
        plan: The plan.
        source: A folder or a CSV file.
        minimum: The accuracy that every head must reach. None: better than always giving the same label.
        step: Called with a few words at the start of each part.

    Returns:
        The outcome, and a sentence for each head whose accuracy is too low. For these heads, other preprocessing was
        tried.

    Raises:
        CheckError: There is nothing to check.
    """
    heads = {head.name: head_spec(head) for head, _ in plan.heads()}
    labels = {name: head.labels for name, head in heads.items()}
    multilabel = frozenset(name for name, head in heads.items() if head.activation == "multilabel")
    found = find_labelled(source, labels, multilabel)
    step(f"checking on {len(found.photos)} labelled photos")
    answers = _answers(plan, heads, found.photos)
    described = next((answer.analysis.heads for answer in answers if answer.analysis is not None), None)
    tallies = tally(answers, dict(described)) if described else {}
    if not tallies:
        raise none_answered(answers)
    refused = {name: sentence for name, counted in tallies.items() if (sentence := _refusal(counted, minimum))}
    judgements = {}
    if refused:
        step("trying other preprocessing")
        judgements = _try_alternatives(plan, heads, answers, {name: tallies[name] for name in refused})
    notes = [note for counted in tallies.values() if (note := _uncertainty(counted))]
    notes += conclusions(judgements, (tallies[name] for name in refused))
    notes += [unchecked(name, labels) for name in labels if name not in tallies]
    outcome = Outcome(printable(str(source)), None, answers, found.unlabelled, tallies, judgements, notes)
    return outcome, list(refused.values())


class _Prepared(NamedTuple):
    """A photo in every view, and its statistics."""

    pixels: dict[View, npt.NDArray[np.uint8]]
    statistics: dict[str, float]


def _answers(plan: Plan, heads: dict[str, HeadSpec], photos: list[LabelledPhoto]) -> list[Answer]:
    least_side = least_side_for(plan.views)
    models = [(network, PixelsToLogits(network).eval()) for network in plan.networks]
    answers: list[Answer] = []
    for start in range(0, len(photos), BATCH):
        batch = [(photo, _prepare(photo, plan, least_side)) for photo in photos[start : start + BATCH]]
        readable = [prepared for _, prepared in batch if not isinstance(prepared, str)]
        read: dict[str, Iterator[Head]] = {}
        for network, model in models if readable else ():
            outputs = _run(model, np.stack([prepared.pixels[network.view] for prepared in readable]))
            for head, logits in zip(network.heads, outputs, strict=True):
                read[head.name] = iter(read_answers(heads[head.name], logits))
        for photo, prepared in batch:
            if isinstance(prepared, str):
                answers.append(Answer(photo, None, prepared))
            else:
                analysis = Analysis({name: next(read[name]) for name in heads}, 0.0)
                answers.append(Answer(photo, analysis, statistics=prepared.statistics))
    return answers


def _prepare(photo: LabelledPhoto, plan: Plan, least_side: int | None) -> _Prepared | str:
    """The photo, prepared like in the preprocess step; the error as a sentence if it is rejected."""
    try:
        content = photo.path.read_bytes()
        decoded = Photo(content, plan.limits.max_bytes, plan.limits.max_pixels, least_side=least_side)
        pixels = {view: view.prepare(decoded) for view in plan.views}
        return _Prepared(pixels, photo_statistics(pixels[plan.networks[0].view], content))
    except OSError as error:
        return f"cannot read it: {error.strerror}"
    except (InvalidPhotoError, ViewError) as error:
        return str(error)


def _run(model: PixelsToLogits, pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    with torch.inference_mode():
        return [logits.numpy() for logits in model(torch.from_numpy(np.ascontiguousarray(pixels)))]


def _refusal(counted: Tally, minimum: float | None) -> str | None:
    right = f"Head '{counted.head}' is right on {counted.accuracy:.1%} of {counted.photos} labelled photos"
    if minimum is not None:
        return f"{right}, below {minimum:.1%}." if counted.accuracy < minimum else None
    if counted.balanced > counted.chance:
        return None
    return (
        f"{right} ({counted.balanced:.1%} on average over the labels), no better than chance ({counted.chance:.1%}). "
        "Check the order of its labels, its architecture (the class used in training, as FILE.py:FACTORY) and its "
        "preprocessing (mean, std, channels, crop); --min-accuracy 0 publishes it anyway."
    )


def _uncertainty(counted: Tally) -> str | None:
    low, _ = interval(counted.right, counted.photos)
    return (
        f"{counted.head}: with {counted.photos} photos, {counted.accuracy:.1%} is not significantly better than chance "
        f"({counted.commonest:.1%}); check with more."
        if counted.balanced > counted.chance and low <= counted.commonest
        else None
    )


class _Session:
    """Runs a network in PyTorch, with the interface of an ONNX session whose normalisation is an input."""

    def __init__(self, network: NetworkPlan) -> None:
        self._model = PixelsToLogits(network).eval()

    def run(self, _outputs: list[str], inputs: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
        self._model.scale, self._model.shift = (torch.from_numpy(inputs[name]) for name in ("scale", "shift"))
        return _run(self._model, inputs["pixels"])


def _try_alternatives(
    plan: Plan, heads: dict[str, HeadSpec], answers: list[Answer], tallies: dict[str, Tally]
) -> dict[str, Judgement]:
    networks = [
        LocalNetwork(
            name=network.name,
            view=network.view,
            normalisation=(network.mean, network.std),
            channels="BGR" if network.bgr else "RGB",
            heads={heads[head.name]: network.output_name(head) for head in network.heads},
            combined=frozenset(head.name for head in network.heads if head.groups),
            session=_Session(network),
            adjustable=True,
        )
        for network in plan.networks
        if any(head.name in tallies for head in network.heads)
    ]
    try:
        found = fit_all(networks, choose_photos(answers, tallies), lambda: None)
    except ServedDiffersError:
        return {}
    return {head: judge(fits) for head, fits in found.items() if head in tallies}
