"""Checks networks on labelled photos before anything is published: in PyTorch, from each photo's bytes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from car_analyzer import Analysis
from car_analyzer.heads import HeadSpec, Tensor, parse_heads

from ..errors import SpecError
from ..onnx_model.graph import PixelsToLogits
from ..preprocess.photo import Photo, PhotoError
from ..preprocess.view import ViewError
from ..repository.config import heads_text
from ..spec import ENSEMBLE
from .advice import advise
from .asking import Answer
from .check import none_answered, unchecked
from .errors import CheckError
from .labelled import find_labelled, printable
from .local import LocalNetwork
from .outcome import Checked, Outcome
from .readings import BATCH, ServedDiffersError, choose_photos, fit_all
from .tally import interval, tally
from .text import as_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from ..spec import NetworkPlan, Plan
    from .labelled import LabelledPhoto
    from .readings import Fit
    from .tally import Tally


def check_before_publishing(plan: Plan, source: Path, minimum: float | None, step: Callable[[str], object]) -> Checked:
    """`check_plan`, with an outcome that can leave this process.

    Raises:
        SpecError: There is nothing to be checked.
    """
    try:
        outcome, refused = check_plan(plan, source, minimum, step)
    except CheckError as error:
        raise SpecError(f"--check: {error}") from error
    heads = {name: {"photos": found.photos, "right": found.right} for name, found in outcome.tallies.items()}
    return Checked(as_text(outcome), outcome.to_dict(), heads, refused)


def check_plan(
    plan: Plan, source: Path, minimum: float | None = None, step: Callable[[str], object] = lambda _text: None
) -> tuple[Outcome, list[str]]:
    """Has the networks of a plan answer photos whose labels are known.

    Args:
        plan: What is to be published.
        source: A folder, or a CSV file.
        minimum: The accuracy that every head must reach. None: better than always giving the same label.
        step: Called with a few words at the start of each part.

    Returns:
        What was found, and a sentence for each head that is not good enough. Other readings of the photos were tried
        for these.

    Raises:
        CheckError: There is nothing to be checked.
    """
    heads = {head.name: head for head in parse_heads(heads_text(plan), ENSEMBLE)}
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
    fits = {}
    if refused:
        step("trying other readings of the photos")
        fits = _other_readings(plan, heads, answers, {name: tallies[name] for name in refused})
    advice = [one for name in refused if fits.get(name) and (one := advise(fits[name]))]
    notes = [note for counted in tallies.values() if (note := _doubt(counted))]
    notes += [unchecked(name, labels) for name in labels if name not in tallies]
    outcome = Outcome(printable(str(source)), None, answers, found.unlabelled, tallies, fits, advice, notes)
    return outcome, list(refused.values())


def _answers(plan: Plan, heads: dict[str, HeadSpec], photos: list[LabelledPhoto]) -> list[Answer]:
    sides = [view.least_side for view in plan.views]
    least_side = None if None in sides else max(side or 0 for side in sides)
    models = [(network, PixelsToLogits(network).eval()) for network in plan.networks]
    answers: list[Answer] = []
    for start in range(0, len(photos), BATCH):
        looked = [_look_at(photo, plan, least_side) for photo in photos[start : start + BATCH]]
        pixels = [one for one in looked if not isinstance(one, str)]
        logits: dict[str, npt.NDArray[np.float32]] = {}
        for network, model in models if pixels else ():
            found = _run(model, np.stack([one[network.view] for one in pixels]))
            logits |= {head.name: rows for head, rows in zip(network.heads, found, strict=True)}
        position = 0
        for photo, one in zip(photos[start:], looked, strict=False):
            if isinstance(one, str):
                answers.append(Answer(photo, None, one))
                continue
            read = {name: head.read(_tensor(logits[name][position])) for name, head in heads.items()}
            answers.append(Answer(photo, Analysis(read, 0.0)))
            position += 1
    return answers


def _look_at(photo: LabelledPhoto, plan: Plan, least_side: int | None) -> dict[Any, npt.NDArray[np.uint8]] | str:
    """The photo in every view, as the preprocess step makes it; a sentence if it refuses the photo."""
    try:
        content = photo.path.read_bytes()
        decoded = Photo(content, plan.limits.max_bytes, plan.limits.max_pixels, least_side=least_side)
        return {view: view.pixels(decoded.upright() if view.exif_rotation else decoded.rgb) for view in plan.views}
    except OSError as error:
        return f"cannot read it: {error.strerror}"
    except (PhotoError, ViewError) as error:
        return str(error)


def _run(model: PixelsToLogits, pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    with torch.inference_mode():
        return [logits.numpy() for logits in model(torch.from_numpy(np.ascontiguousarray(pixels)))]


def _tensor(row: npt.NDArray[np.float32]) -> Tensor:
    return Tensor((1, len(row)), tuple(map(float, row)))


def _refusal(counted: Tally, minimum: float | None) -> str | None:
    right = f"Head '{counted.head}' is right on {counted.accuracy:.1%} of {counted.photos} labelled photos"
    if minimum is not None:
        return f"{right}, below {minimum:.1%}." if counted.accuracy < minimum else None
    if counted.balanced > counted.chance:
        return None
    return (
        f"{right} ({counted.balanced:.1%} on average over the labels), no better than chance ({counted.chance:.1%}). "
        "Check the order of its labels, its architecture (the class used in training, as FILE.py:FACTORY) and what a "
        "photo becomes (mean, std, channels, crop); --min-accuracy 0 publishes it all the same."
    )


def _doubt(counted: Tally) -> str | None:
    low, _ = interval(counted.right, counted.photos)
    return (
        f"{counted.head}: {counted.photos} photos do not tell {counted.accuracy:.1%} from chance "
        f"({counted.commonest:.1%}); check with more."
        if counted.balanced > counted.chance and low <= counted.commonest
        else None
    )


class _Session:
    """A network in PyTorch in the place of an ONNX session whose normalisation is an input."""

    def __init__(self, network: NetworkPlan) -> None:
        self._model = PixelsToLogits(network).eval()

    def run(self, _outputs: list[str], inputs: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
        self._model.scale, self._model.shift = (torch.from_numpy(inputs[name]) for name in ("scale", "shift"))
        return _run(self._model, inputs["pixels"])


def _other_readings(
    plan: Plan, heads: dict[str, HeadSpec], answers: list[Answer], tallies: dict[str, Tally]
) -> dict[str, list[Fit]]:
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
        return fit_all(networks, choose_photos(answers, tallies), lambda: None)
    except ServedDiffersError:
        return {}
