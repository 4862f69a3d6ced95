"""Says in one line what a checkpoint proves about the network that was chosen, and what remains a guess."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from ..architectures.statistics import Statistics, examine, has_statistics, scale_of_input
from ..spec import normalised

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ..architectures import Built
    from ..spec import NetworkPlan

# Enough natural pictures for the statistics.
PICTURES = 16

# By which factor the spread of the input may differ, on photos and on generated pictures: contrast alone makes 1.2 and
# 1.7, a normalisation by 0.5 in place of ImageNet's 2.2, and no normalisation 4.4.
_OTHER_INPUT = {True: 2.0, False: 3.0}
_CONFIRM = (
    "Confirm it: name FILE.py:FACTORY with the class used in training as the architecture, or compare on photos you "
    "know with --check labelled/ before publishing."
)
_USUAL = {
    "mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225]": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean = [0.5, 0.5, 0.5] and std = [0.5, 0.5, 0.5]": ((0.5,) * 3, (0.5,) * 3),
    "normalize = false": ((0.0,) * 3, (1.0,) * 3),
    # Pixels from 0 to 255.
    "mean = [0, 0, 0] and std = [0.00392157, 0.00392157, 0.00392157]": ((0.0,) * 3, (1 / 255,) * 3),
}


def batch_norm_statistics(plan: NetworkPlan, pixels: Callable[[], npt.NDArray[Any]]) -> Statistics:
    """Compares the inputs of the network's batch-norm layers with their stored values.

    Args:
        plan: The network.
        pixels: Returns natural pictures, uint8 [batch, height, width, 3]; called only if there are such layers.
    """
    if has_statistics(plan.network):
        images = normalised(pixels(), plan.mean, plan.std, bgr=plan.bgr)
        with contextlib.suppress(Exception):  # a network that takes no batch fails later, with a better message
            return examine(plan.network, images)
    return Statistics()


def describe(owner: str, built: Built, statistics: Statistics) -> str | None:
    """The line about the architecture; None where nothing is a guess and nothing contradicts it.

    Args:
        owner: What to call the network, such as `Head 'condition'`.
        built: The network.
        statistics: The result for its batch-norm layers.
    """
    name = built.architecture
    if statistics.outcome == "contradict":
        meant = f" {_either(built.rivals)} has the same names and shapes." if built.rivals else ""
        return (
            f"Warning: {owner}: the batch-norm statistics contradict {name}, from the layer {statistics.departs} on: "
            "the weights were probably trained with another forward() (activations, their order, residuals, pooling), "
            f"or the statistics are not theirs.{meant} {_CONFIRM}"
        )
    assumed = "; ".join(built.assumed)
    if not built.guessed:
        why = "is a guess, because layers without weights do not show in a checkpoint"
        return f"{owner}: in {name}, {assumed} {why}. {_CONFIRM}" if assumed else None
    if statistics.outcome == "agree":
        less = f" (less with {_either(built.beaten)})" if built.beaten else ""
        agreed = (
            f"{owner}: {name} was found by names and shapes, and the statistics of {statistics.layers} batch-norm "
            f"layers agree with it{less}."
        )
        if assumed:
            return f"{agreed} Still a guess: {assumed}. {_CONFIRM}"
        return (
            f"{agreed} They show little of strides, blurs and padding, and nothing of what follows {statistics.last}; "
            "--check labelled/ compares all of it."
        )
    others = "another network may have the same"
    if built.rivals:
        others = f"{_either(built.rivals)} has the same and would answer differently"
    if built.beaten:
        others += f", though the batch-norm statistics contradict {_either(built.beaten)}"
    if statistics.never_trained:
        others += ", and its batch-norm layers look never trained"
    more = f" So is: {assumed}." if assumed else ""
    return f"{owner}: the architecture {name} is a guess from names and shapes; {others}.{more} {_CONFIRM}"


def describe_input(
    owner: str, plan: NetworkPlan, statistics: Statistics, pixels: Callable[[], npt.NDArray[Any]], *, photos: bool
) -> str | None:
    """A warning if training probably normalised pixels differently; `photos`: the pixels are of photos."""
    scale = statistics.input_scale
    if scale is None or abs(math.log(scale)) < math.log(_OTHER_INPUT[photos]):
        return None
    off = {
        text: abs(math.log(scale_of_input(plan.network, normalised(pixels(), mean, std, bgr=plan.bgr))))
        for text, (mean, std) in _USUAL.items()
    }
    best = min(off, key=off.__getitem__)
    hint = f" In the spec, {best} would fit." if off[best] < math.log(2) else ""
    return (
        f"Warning: {owner}: the input of its first batch-norm layer is {scale:.2g} times as wide as in training, so "
        f"pixels were probably normalised differently there.{hint} --check labelled/ compares."
    )


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)
