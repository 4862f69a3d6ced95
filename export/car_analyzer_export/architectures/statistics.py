"""Checks how a network computes by what its batch normalisation stored in training.

A BatchNorm layer stores the mean and variance that each channel of its input had in training. If the network computes
as it did then, its layers see nearly the same again on any natural pictures, as long as each layer before is reset to
its stored values: then a channel's mean depends on the activation, the residual or the pooling between two layers, and
hardly on the pictures. Small changes need a comparison, so every activation is also replaced by a similar one. Changes
that move no mean or variance do not show: strides, paddings, a slope of 0.01, and all that follows the last such layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

Outcome = Literal["agree", "contradict", "cannot tell"]

# Of the worst tenth of the layers: means in standard deviations, and standard deviations as a logarithm. Measured:
# MobileNetV2 and EfficientNet-Lite with ImageNet weights 0.02 and 0.05 to 0.1 on photos, 0.06 and 0.18 on generated
# pictures; small networks trained for a minute 0.05 and 0.07, on generated pictures up to 0.35 and 0.33. With another
# activation everywhere: GELU 0.14 to 0.8, SiLU 0.8, none 0.35 to 0.7 and 0.55 to 0.6; with the ReLU before the
# normalisation 0.5 to 0.65; without residuals 0.1 and 1.
_AGREE = (0.07, 0.25)
_CONTRADICT = 0.8  # both together
_SLOPE = 0.1
_LEAST_LAYERS = 5
# With fewer values, a mean is off by more than a few hundredths of a standard deviation.
_LEAST_VALUES = 256
# Standard deviations; chance exceeds it once in 200 times. Correct networks of 24 to 51 layers reached 3.6 and more
# against one other activation, wrong ones 1.4 at most.
_SURE = 2.6


@dataclass(frozen=True)
class Statistics:
    """How the inputs of the layers compare with their stored values.

    Attributes:
        outcome: `agree` and `contradict` are about everything between the first and the last of the layers.
        layers: How many were compared, without the first.
        mean_off: How far the channels' means are off, in standard deviations, for the worst tenth of the layers.
        spread_off: How far their standard deviations are off, as a logarithm, likewise.
        departs: The first layer that contradicts.
        last: The last layer that was compared.
        input_scale: Spread of the first layer's input, relative to training.
        never_trained: All of them have their initial values.
        misfits: Layer → how far it is off.
    """

    outcome: Outcome = "cannot tell"
    layers: int = 0
    mean_off: float | None = None
    spread_off: float | None = None
    departs: str | None = None
    last: str | None = None
    input_scale: float | None = None
    never_trained: bool = False
    misfits: dict[str, float] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        numbers = {"mean_off": self.mean_off, "spread_off": self.spread_off, "input_scale": self.input_scale}
        return {
            "outcome": self.outcome,
            "layers": self.layers,
            **{name: None if value is None else round(value, 3) for name, value in numbers.items()},
            "departs": self.departs,
            "last": self.last,
            "never_trained": self.never_trained,
        }

    def fits_better(self, other: Statistics) -> bool:
        """Whether layers are nearer to their stored values than in another network, by more than chance explains."""
        return self.outcome != "contradict" and _nearer(self.misfits, other.misfits)

    def is_nearer(self, other: Statistics) -> bool:
        """Whether layers are nearer to their stored values on average, which may be chance."""
        common = self.misfits.keys() & other.misfits.keys()
        return sum(self.misfits[name] for name in common) < sum(other.misfits[name] for name in common)


def has_statistics(network: torch.nn.Module) -> bool:
    """Whether any layer has stored values."""
    return any(True for _ in _layers(network))


def examine(network: torch.nn.Module, images: torch.Tensor) -> Statistics:
    """Runs pictures through a network, and compares the inputs of its BatchNorm layers with their stored values.

    Args:
        network: In eval mode; not changed.
        images: Normalised, float32 [batch, 3, height, width]; natural pictures, 16 are enough.
    """
    found = _run(network, images)
    if not found:
        return Statistics()
    if all(bool((layer.running_mean == 0).all() and (layer.running_var == 1).all()) for layer in _layers(network)):
        return Statistics(never_trained=True)
    (_, _, _, first_ratio), *rest = found
    input_scale = math.exp(first_ratio) if math.isfinite(first_ratio) else None
    if len(rest) < _LEAST_LAYERS or not all(math.isfinite(mean + spread) for _, mean, spread, _ in rest):
        return Statistics(input_scale=input_scale)
    off = _worst_tenth([mean for _, mean, _, _ in rest]), _worst_tenth([spread for _, _, spread, _ in rest])
    misfits = _misfits(rest)
    departs = next((name for name, misfit in misfits.items() if misfit >= _CONTRADICT), None)
    outcome: Outcome = "cannot tell"
    if off[0] <= _AGREE[0] and off[1] <= _AGREE[1] and departs is None:
        with _OtherActivations():
            changed = _misfits(_run(network, images)[1:])
        # The same, if activations are computed in a way that this cannot replace.
        if changed == misfits or _nearer(misfits, changed):
            outcome = "agree"
    elif _worst_tenth(list(misfits.values())) >= _CONTRADICT:
        outcome = "contradict"
    return Statistics(
        outcome,
        len(rest),
        *off,
        departs if outcome == "contradict" else None,
        rest[-1][0],
        input_scale,
        misfits=misfits,
    )


def scale_of_input(network: torch.nn.Module, images: torch.Tensor) -> float:
    """Spread of the first layer's input, relative to training."""
    found = _run(network, images, first_only=True)
    return math.exp(found[0][3]) if found else math.nan


def _layers(network: torch.nn.Module) -> Any:
    return (
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
    )


class _OtherActivations(TorchFunctionMode):
    """Makes every ReLU leaky, and replaces other activations by similar ones."""

    _LIKE: ClassVar = {
        functional.silu: functional.hardswish,
        functional.hardswish: functional.silu,
        functional.gelu: functional.silu,
        functional.leaky_relu: functional.relu,
    }
    _RELUS = frozenset(
        {torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, functional.relu, functional.relu6}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._LIKE:
            return self._LIKE[func](args[0])
        is_relu6 = func is functional.hardtanh and kwargs.get("min_val") == 0
        if func not in self._RELUS and not is_relu6:
            return func(*args, **kwargs)
        through = -_SLOPE * torch.relu(-args[0])  # before an in-place ReLU
        return func(*args, **kwargs) + through


class _Stop(Exception):  # noqa: N818 - not an error: the result is known
    pass


def _run(
    network: torch.nn.Module, images: torch.Tensor, *, first_only: bool = False
) -> list[tuple[str, float, float, float]]:
    """For each layer, in order of execution: name, means off, deviations off, and by which factor (a log)."""
    found: dict[str, tuple[str, float, float, float] | None] = {}
    names = {module: name for name, module in network.named_modules()}

    def look(layer: Any, inputs: tuple[Any, ...]) -> tuple[torch.Tensor] | None:
        seen = inputs[0]
        axes = [axis for axis in range(seen.ndim) if axis != 1]
        mean, variance = seen.mean(axes), seen.var(axes, correction=0)
        name = names[layer]
        enough = seen.numel() // seen.shape[1] >= _LEAST_VALUES and name not in found
        # A layer that runs twice stored a mixture.
        found[name] = (name, *_compare(layer, mean, variance)) if enough else None
        if first_only:
            raise _Stop
        if not enough:
            return None
        shape = [1, -1, *[1] * (seen.ndim - 2)]
        scale = (layer.running_var / (variance + 1e-12)).sqrt()
        return ((seen - mean.reshape(shape)) * scale.reshape(shape) + layer.running_mean.reshape(shape),)

    hooks = [layer.register_forward_pre_hook(look) for layer in _layers(network)]
    try:
        with torch.inference_mode():
            network(images)
    except _Stop:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return [one for one in found.values() if one is not None]


def _misfits(found: list[tuple[str, float, float, float]]) -> dict[str, float]:
    return {name: mean + spread for name, mean, spread, _ in found}


def _nearer(own: dict[str, float], other: dict[str, float]) -> bool:
    """Whether layers are less off: all of them, or by more than chance explains."""
    gains = sorted((other[name] - own[name] for name in own.keys() & other.keys()), key=abs)
    count = len(gains)
    # Wilcoxon's signed-rank test: the larger a difference, the more it counts.
    won = sum(rank for rank, gain in enumerate(gains, start=1) if gain > 0)
    deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    every = count >= _LEAST_LAYERS and min(gains) > 0
    return every or won - count * (count + 1) / 4 > _SURE * deviation


def _compare(layer: Any, mean: torch.Tensor, variance: torch.Tensor) -> tuple[float, float, float]:
    remembered, spread = layer.running_mean, layer.running_var
    alive = spread > 1e-6 * spread.median()  # a channel that is always 0 proves nothing
    mean, variance, remembered, spread = (values[alive] for values in (mean, variance, remembered, spread))
    means_off = (mean - remembered).abs() / ((variance + spread) / 2).sqrt()
    ratios = ((variance + 1e-12) / (spread + 1e-12)).log() / 2
    return _median(means_off), _median(ratios.abs()), _median(ratios)


def _median(values: torch.Tensor) -> float:
    return float(values.median()) if len(values) else math.nan


def _worst_tenth(values: list[float]) -> float:
    return float(torch.tensor(values).quantile(0.9))
