"""Builds one network of torchvision or timm for a checkpoint: its classes, its photo size, its head."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import zoo
from .heads import rebuild_head
from .index import is_position_table
from .weights import Differences, Misfit, check_same, load_weights, match_names, name_variants

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from ..checkpoints.model import StateDict

_NUMBER = re.compile(r"[0-9]{1,6}")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Built:
    """A network with its weights.

    Attributes:
        network: On the CPU; float32, if it comes from torchvision or timm.
        architecture: The name that builds it again, such as `torchvision:resnet18`.
        notes: What was changed on the way, and what to consider, in sentences for the user.
        classes: The number of its logits, if the weights show it.
        guessed: Nobody names the architecture; it was found by the names and shapes of the weights.
        assumed: Layers of a replaced head that have no weights, each in a few words.
        rivals: Other networks with these names and shapes that would answer differently, and may be meant: the
            batch-norm statistics are nearer to them, or the checkpoint names a network that does not fit.
        beaten: Other networks with these names and shapes that the batch-norm statistics fit worse.
    """

    network: torch.nn.Module
    architecture: str
    notes: tuple[str, ...] = ()
    classes: int | None = None
    guessed: bool = False
    assumed: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    beaten: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """A network of torchvision or timm with the names and shapes of a checkpoint, not loaded yet.

    Attributes:
        source: `torchvision` or `timm`.
        name: The network's name there.
        network: Most of its parameters are on the meta device.
        weights: The checkpoint, under the network's own names.
        classes, notes, assumed: As in `Built`.
        side: Height and width of the photos it is made for.
    """

    source: str
    name: str
    network: torch.nn.Module
    weights: StateDict
    classes: int | None
    side: int
    notes: tuple[str, ...]
    assumed: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """As a user names it."""
        return f"{self.source}:{self.name}"

    def load(self) -> Built:
        """Loads the weights; the network is in eval mode then."""
        load_weights(self.network, self.weights)
        return Built(self.network.eval(), self.architecture, self.notes, self.classes, assumed=self.assumed)


def fit(source: str, name: str, weights: StateDict, kwargs: Mapping[str, Any]) -> Fit:
    """Builds the network that has the checkpoint's names and shapes.

    The weights show the number of classes, the photo size of a vision transformer and a replaced head.

    Raises:
        NetworkError: The library is not installed, or has no such network.
        Misfit: The checkpoint belongs to another network.
    """
    arguments = dict(kwargs)
    classes, asked = _classes(weights), arguments.get("num_classes")
    if classes and asked and classes != asked:
        raise Misfit(f"the checkpoint has {classes} classes, not num_classes={asked}")
    if classes:
        arguments["num_classes"] = classes
    network = zoo.create(source, name, arguments)
    weights, renamed = match_names(weights, network.state_dict().keys())
    notes = list(renamed)
    if source == zoo.TORCHVISION and name in zoo.INCEPTIONS:
        weights = _inception(weights, arguments, notes)
    differences = Differences.between(weights, network.state_dict())
    side = _side_in(differences, zoo.side(source, network))
    if side:
        arguments["image_size" if source == zoo.TORCHVISION else "img_size"] = side
        network = zoo.create(source, name, arguments)
        differences = Differences.between(weights, network.state_dict())
        notes.append(f"The network takes photos of {side} x {side} pixels; the photo size must be the same.")
    assumed = _replace_heads(network, weights, differences) if differences else []
    normalisation = zoo.normalisation(source, network)
    if normalisation and normalisation != _IMAGENET:
        mean, std = normalisation
        notes.append(
            f"timm's own weights of {name} were trained with mean {_numbers(mean)} and std {_numbers(std)}; "
            "if training started from those, the spec needs the same."
        )
    return Fit(source, name, network, weights, classes, side or zoo.side(source, network), tuple(notes), tuple(assumed))


def head_names(names: Iterable[str]) -> list[str]:
    """The names that belong to a classifier's last layers."""
    return [name for name in names if name.partition(".")[0] in zoo.HEADS - zoo.TRAINING_HEADS]


def _classes(weights: StateDict) -> int | None:
    *_, (bare, _) = name_variants(weights)
    layers = [name for name in head_names(bare) if bare[name].ndim in (2, 4)]
    if not layers:
        return None
    # Some files are sorted alphabetically, which puts layer 10 before layer 4.
    alike = [name for name in layers if _NUMBER.sub("", name) == _NUMBER.sub("", layers[-1])]
    last = max(alike, key=lambda name: [int(number) for number in _NUMBER.findall(name)])
    return bare[last].shape[0]


def _inception(weights: StateDict, arguments: Mapping[str, Any], notes: list[str]) -> StateDict:
    if "transform_input" not in arguments:
        notes.append(
            "The network is built with transform_input=True, which changes how its input is normalised, as torchvision "
            "does whenever it loads weights of its own. A checkpoint does not show it; if this one was trained from "
            "scratch, pass transform_input=False."
        )
    extra = [name for name in weights if name.partition(".")[0] in zoo.TRAINING_HEADS]
    if not extra or arguments.get("aux_logits"):
        return weights
    heads = sorted({name.partition(".")[0] for name in extra})
    notes.append(f"Left out, as only training uses them: the heads {' and '.join(heads)}.")
    return {name: tensor for name, tensor in weights.items() if name not in extra}


def _side_in(differences: Differences, own_side: int) -> int | None:
    """The photo size for which a vision transformer's position table has another length."""
    body = [name for name in differences.names if name.partition(".")[0] not in zoo.HEADS]
    shapes = differences.shapes.get(body[0], ()) if len(body) == 1 and is_position_table(body[0]) else ()
    if not shapes or any(len(shape) != 3 for shape in shapes):
        return None
    theirs, own = (shape[1] for shape in shapes)
    # One position for each patch of a square grid, and a few for other tokens.
    for others in range(min(theirs, own, 16)):
        grid, own_grid = math.isqrt(theirs - others), math.isqrt(own - others)
        if grid**2 == theirs - others and own_grid**2 == own - others and own_side * grid % own_grid == 0:
            return own_side * grid // own_grid
    return None


def _replace_heads(network: torch.nn.Module, weights: StateDict, differences: Differences) -> list[str]:
    own_tops = {name.partition(".")[0] for name in network.state_dict()}
    body = [name for name in differences.names if not _is_head(name, own_tops)]
    if body:
        check_same(weights, network.state_dict())
    if not head_names(weights):
        tops = sorted({name.partition(".")[0] for name in differences.missing})
        raise Misfit(f"the checkpoint holds the network's body without its head ({', '.join(tops)})")
    assumed: list[str] = []
    for top in sorted({name.partition(".")[0] for name in differences.names}):
        path = _common_module(network, [name for name in differences.names if name.partition(".")[0] == top])
        inside = {name[len(path) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(f"{path}.")}
        with zoo.parameters_on_meta():
            head, of_head = rebuild_head(network.get_submodule(path), path, inside)
        network.set_submodule(path, head)
        assumed += of_head
    check_same(weights, network.state_dict())
    return assumed


def _is_head(name: str, own_tops: set[str]) -> bool:
    top, _, below = name.partition(".")
    return top in zoo.HEADS and top in own_tops and bool(below)


def _common_module(network: torch.nn.Module, names: list[str]) -> str:
    """The innermost module of the network that holds all these names."""
    path = names[0].rpartition(".")[0]
    modules = dict(network.named_modules())
    while path not in modules or not all(name.startswith(f"{path}.") for name in names):
        path = path.rpartition(".")[0]
    return path


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
