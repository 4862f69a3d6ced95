"""Rebuilds the replaced last layers of a classifier from their weights.

Only layers with weights show. The others are gaps in the numbers of a `Sequential`: that a gap is an activation or a
dropout is an assumption, and every assumption is returned in a few words.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias, Union

import torch
from torch import nn

from .weights import Misfit

if TYPE_CHECKING:
    from ..checkpoints.model import StateDict

_Tree: TypeAlias = dict[str, Union["_Tree", torch.Tensor]]

# The features are maps if the original head holds one of these.
_FOR_MAPS = (nn.Flatten, nn.AdaptiveAvgPool2d, nn.Conv2d)
_NOT_ACTIVATIONS = (nn.Dropout, nn.Identity, nn.Flatten, nn.AdaptiveAvgPool2d)
# No head is larger; crafted names could fill the memory.
_DEEPEST, _MOST_LAYERS = 8, 64
_NORM_STATE = {"running_mean", "running_var", "num_batches_tracked"}


def rebuild_head(original: nn.Module, path: str, weights: StateDict) -> tuple[nn.Module, tuple[str, ...]]:
    """Builds a module whose state_dict has the names and shapes of the weights.

    Args:
        original: The network's own module here. Its layers are kept where the weights fit.
        path: Its name in the network, for the assumptions.
        weights: The checkpoint's entries below `path`, without it.

    Returns:
        The module, to be put at `path`, and a few words for each assumption, such as "a ReLU between fc.1 and fc.4".

    Raises:
        Misfit: The weights do not show enough of the layers.
    """
    rebuild = _Rebuild(original)
    if not isinstance(original, (nn.Sequential, nn.Linear, nn.Conv2d)):
        raise _unclear(path, f"the original is a {type(original).__name__}, whose other parts have no weights")
    return rebuild.layer(_tree(path, weights), path, original, follows_directly=True), tuple(rebuild.assumed)


class _Rebuild:
    """One walk over the layers of a head, first to last.

    Attributes:
        assumed: What was assumed.
        features: The number of features after the last layer; None after maps.
        maps: Whether the features are still maps, [batch, channels, height, width].
        bare: The last Linear layer, while no activation follows it.
    """

    def __init__(self, original: nn.Module) -> None:
        self.assumed: list[str] = []
        inside = list(original.modules())
        self.maps = isinstance(original, nn.Sequential) and any(isinstance(module, _FOR_MAPS) for module in inside)
        linear = next((module for module in inside if isinstance(module, nn.Linear)), None)
        self.features = linear.in_features if linear and not self.maps else None
        self.bare: str | None = None

    def layer(self, node: _Tree, path: str, original: nn.Module | None, *, follows_directly: bool) -> nn.Module:
        """Builds a layer with weights, or a sequence of layers."""
        own = {name: part for name, part in node.items() if isinstance(part, torch.Tensor)}
        if not own:
            return self.sequence(node, path, original if isinstance(original, nn.Sequential) else None)
        if len(own) < len(node):
            raise _unclear(path, "it has weights of its own and layers too")
        if any(tensor.numel() == 0 for tensor in own.values()):
            raise _unclear(path, "its weights are empty")
        shapes = {name: tensor.shape for name, tensor in own.items()}
        kept = original is not None and {name: part.shape for name, part in original.state_dict().items()} == shapes
        module = original if kept and original is not None else self.new_layer(own, path, original)
        return self.passed(module, path, follows_directly=follows_directly)

    def sequence(self, node: _Tree, path: str, original: nn.Sequential | None) -> nn.Module:
        """Builds a `Sequential`: by number, filling gaps, or by name, in the order of the checkpoint."""
        numbered = all(name.isascii() and name.isdecimal() for name in node)
        if numbered and any(len(name) > len(str(_MOST_LAYERS)) or int(name) > _MOST_LAYERS for name in node):
            raise _unclear(f"{path}.{max(node, key=len)[:20]}", "too many layers in front of it have no weights")
        names = sorted(node, key=int) if numbered else list(node)
        originals = dict(original.named_children()) if original is not None and numbered else {}
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        position, alike = 0, bool(originals)
        for name in names:
            gap = [str(number) for number in range(position, int(name))] if numbered else []
            alike = alike and name in originals and _has_weights(originals[name])
            alike = alike and not any(_has_weights(originals[number]) for number in gap)
            layers.update(self.original_gap(gap, originals, path, name) if alike else self.gap(gap, path, name))
            part = node[name]
            assert not isinstance(part, torch.Tensor)  # noqa: S101 - `layer` passes no mixed node
            follows_directly = numbered and bool(gap or position)
            below = f"{path}.{name}"
            layers[name] = self.layer(
                part, below, originals.get(name) if alike else None, follows_directly=follows_directly
            )
            position = int(name) + 1 if numbered else 0
        rest = [name for name in originals if int(name) >= position]
        if alike and not any(_has_weights(originals[name]) for name in rest):
            layers.update((name, originals[name]) for name in rest)
        return nn.Sequential(layers)

    def original_gap(
        self, gap: list[str], originals: dict[str, nn.Module], path: str, following: str
    ) -> dict[str, nn.Module]:
        """Fills a gap with the original's layers, between layers of the same kind and number."""
        for number in gap:
            if isinstance(originals[number], nn.Flatten):
                self.maps = False
            if not isinstance(originals[number], _NOT_ACTIVATIONS):
                name = type(originals[number]).__name__
                self.assumed.append(f"the original's {name} before {path}.{following}, at {path}.{number}")
                self.bare = None
        return {number: originals[number] for number in gap}

    def gap(self, gap: list[str], path: str, following: str) -> dict[str, nn.Module]:
        """Fills a gap with what a head needs there: the step from maps to numbers, or one activation."""
        layers: dict[str, nn.Module] = {number: nn.Identity() for number in gap}
        if not gap:
            return layers
        if self.maps:
            layers[gap[-1]] = nn.Flatten()
            if len(gap) > 1:
                layers[gap[-2]] = nn.AdaptiveAvgPool2d(1)
            self.maps = False
            step = "the average over the photo and a Flatten" if len(gap) > 1 else "a Flatten"
            self.assumed.append(f"{step} before {path}.{following}")
        elif self.bare:
            layers[gap[0]] = nn.ReLU()
            self.assumed.append(f"a ReLU between {self.bare} and {path}.{following}, at {path}.{gap[0]}")
            self.bare = None
        if still := [f"{path}.{number}" for number, layer in layers.items() if isinstance(layer, nn.Identity)]:
            self.assumed.append(f"dropout at {' and '.join(still)}")
        return layers

    def new_layer(self, own: dict[str, torch.Tensor], path: str, original: nn.Module | None) -> nn.Module:
        """Builds the layer that has these weights."""
        names, weight = own.keys(), own.get("weight")
        sizes = {tuple(tensor.shape) for name, tensor in own.items() if name != "num_batches_tracked"}
        affine = names & {"weight", "bias"}
        if names <= {"weight", "bias"} and weight is not None:
            if weight.ndim == 2 and ("bias" not in own or own["bias"].shape == weight.shape[:1]):
                return nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in own)
            if weight.ndim == 4 and isinstance(original, nn.Conv2d) and weight.shape[2:] == original.kernel_size:
                stride, padding = original.stride, original.padding
                kernel = original.kernel_size
                return nn.Conv2d(weight.shape[1], weight.shape[0], kernel, stride, padding, bias="bias" in own)  # type: ignore[arg-type]
            if names == {"weight"} and weight.shape == (1,):
                return nn.PReLU()
            if "bias" in own and weight.ndim == 1 and len(sizes) == 1:
                self.assumed.append(f"a LayerNorm with PyTorch's own eps, 1e-5, at {path}")
                return nn.LayerNorm(weight.shape[0])
        if names >= {"running_mean", "running_var"} and names <= _NORM_STATE | {"weight", "bias"} and len(sizes) == 1:
            (size,) = sizes
            if len(size) == 1 and len(affine) != 1:
                return nn.BatchNorm1d(size[0], affine=bool(affine))
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in own.items())
        raise _unclear(path, f"no layer is known that has {shapes}")

    def passed(self, module: nn.Module, path: str, *, follows_directly: bool) -> nn.Module:
        """Records a layer; puts a ReLU in front of a Linear where one may be hidden between two of them."""
        if isinstance(module, nn.PReLU):
            self.bare = None
        if isinstance(module, nn.Conv2d):
            self.features = module.out_channels
        elif isinstance(module, (nn.BatchNorm1d, nn.LayerNorm)):
            self._takes(module.num_features if isinstance(module, nn.BatchNorm1d) else module.normalized_shape[0], path)
        elif isinstance(module, nn.Linear):
            self._takes(module.in_features, path)
            bare, self.bare = self.bare, path
            self.features = module.out_features
            # Consecutive numbers in one Sequential leave no room for an activation.
            if bare and not (follows_directly and bare.rpartition(".")[0] == path.rpartition(".")[0]):
                self.assumed.append(f"a ReLU between {bare} and {path}")
                return _LinearAfterReLU(module.in_features, module.out_features, bias=module.bias is not None)
        return module

    def _takes(self, features: int, path: str) -> None:
        if self.maps:
            raise _unclear(path, "it takes numbers, where the network gives feature maps")
        if self.features not in (None, features):
            raise _unclear(
                path,
                f"it takes {features} features, where {self.features} come in; a layer without weights that changes "
                "their number (GLU halves it, pooling by average and maximum doubles it) does not show in a "
                "checkpoint, so name the network as FILE.py:FACTORY",
            )
        self.features = features


class _LinearAfterReLU(nn.Linear):
    """A Linear layer behind an activation that has no number of its own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name in torch.nn.Linear
        return super().forward(torch.relu(input))


def _tree(path: str, weights: StateDict) -> _Tree:
    root: _Tree = {}
    for name, tensor in weights.items():
        *folders, last = name.split(".")
        if len(folders) > _DEEPEST or any(hasattr(nn.Sequential, folder) or not folder for folder in folders):
            raise _unclear(f"{path}.{name}", "the names of its layers are not those of a Sequential")
        node = root
        for folder in folders:
            below = node.setdefault(folder, {})
            if isinstance(below, torch.Tensor):
                raise _unclear(f"{path}.{name}", "it lies below weights")
            node = below
        if last in node:
            raise _unclear(f"{path}.{name}", "there are layers below these weights")
        node[last] = tensor
    return root


def _has_weights(module: nn.Module) -> bool:
    return bool(module.state_dict())


def _unclear(path: str, why: str) -> Misfit:
    return Misfit(f"the head cannot be rebuilt from its weights: at {path}, {why}")
