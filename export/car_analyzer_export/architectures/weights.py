"""Matches the names of a state_dict with those of a network, and loads it strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import torch

    from ..checkpoints.model import StateDict

# Training frameworks store these beside the network: loss weights, metrics, the count of averaged weights.
_TRAINING_ONLY = re.compile(
    r"(\w+_)?(criterion|criteria|loss|losses|loss_fn|loss_func|loss_function)"
    r"|((train|training|val|valid|validation|test)_?)?(metrics?|acc|accuracy|f1|auroc|auc|precision|recall|confmat)"
    r"|n_averaged"
)
# Counts training steps; evaluation never reads it, and checkpoints of early PyTorch lack it.
UNUSED_BUFFER = "num_batches_tracked"
_SHOWN = 3
# Frameworks stack a few; crafted names could have thousands.
_MOST_PREFIXES = 8

MISFIT = "these weights are not this network's: "


class Misfit(NetworkError):  # noqa: N818 - caught and completed within this package
    """The weights belong to another network; the message starts in lower case and has no full stop."""


@dataclass(frozen=True)
class Differences:
    """How the names and shapes of a checkpoint and a network differ.

    Attributes:
        missing: Names that only the network has.
        unknown: Names that only the checkpoint has.
        shapes: Name → (shape in the checkpoint, shape in the network), where they differ.
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def between(cls, weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> Differences:
        """Compares a checkpoint's weights with a network's own."""
        return cls(
            tuple(name for name in own if name not in weights and not name.endswith(UNUSED_BUFFER)),
            tuple(name for name in weights if name not in own),
            {
                name: (tuple(weights[name].shape), tuple(own[name].shape))
                for name in own
                if name in weights and own[name].shape != weights[name].shape
            },
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that differ."""
        return (*self.missing, *self.unknown, *self.shapes)

    def __str__(self) -> str:
        shapes = [
            f"{name} ({theirs} in the checkpoint, {own} in the network)" for name, (theirs, own) in self.shapes.items()
        ]
        parts = (
            _listed("missing from the checkpoint", sorted(self.missing)),
            _listed("unknown to the network", sorted(self.unknown)),
            _listed("of another shape", shapes),
        )
        return "; ".join(filter(None, parts))


def match_names(weights: StateDict, own: Collection[str]) -> tuple[StateDict, tuple[str, ...]]:
    """Removes a prefix such as `module.` that all names have and the network's own names lack.

    Entries of the training (`criterion.weight`) are removed, too, unless the network has them.

    Args:
        weights: The checkpoint.
        own: The names of the network's state_dict.

    Returns:
        The weights under the names that match most of the network's, and a sentence for each change.
    """

    def fit(variant: tuple[StateDict, tuple[str, ...]]) -> tuple[int, int]:
        known = sum(name in variant[0] for name in own)
        return known, known - len(variant[0])

    return max(name_variants(weights), key=fit)  # the first of equals, which is the least changed


def name_variants(weights: StateDict) -> Iterator[tuple[StateDict, tuple[str, ...]]]:
    """Yields the weights unchanged, then with ever shorter names, each with sentences on the changes."""
    notes: tuple[str, ...] = ()
    yield weights, notes
    for _ in range(_MOST_PREFIXES):
        network = {name: tensor for name, tensor in weights.items() if not _is_training_only(name)}
        if network and len(network) < len(weights):
            dropped = [name for name in weights if name not in network]
            notes = (
                *notes,
                f"Left out, because they belong to the training and not to the network: {_first(dropped)}.",
            )
            weights = network
            yield weights, notes
        prefix = common_prefix(weights)
        if prefix is None:
            return
        notes = (*notes, _prefix_note(prefix))
        weights = {name[len(prefix) :]: tensor for name, tensor in weights.items()}
        yield weights, notes


def common_prefix(names: Collection[str]) -> str | None:
    """The first part, dot included, that all names share; None if it is the whole of a name."""
    prefixes = {name.partition(".")[0] + "." for name in names}
    if len(prefixes) != 1:
        return None
    (prefix,) = prefixes
    return prefix if all(name.startswith(prefix) for name in names) else None


def load_weights(network: torch.nn.Module, weights: StateDict) -> None:
    """Loads a state_dict strictly: every name and shape must be there, and no other.

    Args:
        network: Its parameters may be on the meta device.
        weights: The checkpoint, of any float type. Parameters that were on the meta device become float32 and share
            the memory of its float32 tensors.

    Raises:
        Misfit: The weights belong to another network; the message names the first differences.
    """
    own = network.state_dict()
    check_same(weights, own)
    for name, mine in own.items():
        theirs = mine if name.endswith(UNUSED_BUFFER) else weights[name]
        if theirs.is_quantized or theirs.is_floating_point() != mine.is_floating_point():
            raise Misfit(f"the weights {name!r} are {theirs.dtype}, the network's {mine.dtype}")
        own[name] = _prepared(theirs)
    # Filled in place: a state_dict also carries the versions of the layers, which some networks need.
    network.load_state_dict(own, strict=True, assign=any(value.is_meta for value in network.parameters()))


def check_same(weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Compares names and shapes.

    Raises:
        Misfit: They differ; the message names the first differences, and the cause if it shows.
    """
    differences = Differences.between(weights, own)
    if differences:
        raise Misfit(f"{MISFIT}{differences}{_cause(differences, own)}")


def _prepared(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.detach()
    return (plain.float() if plain.is_floating_point() else plain).contiguous()


def _cause(differences: Differences, own: Mapping[str, torch.Tensor]) -> str:
    if not (differences.missing or differences.unknown):
        *_, (theirs, mine) = differences.shapes.values()
        last = list(own)[-1].rpartition(".")[0]
        if theirs[1:] == mine[1:] and all(name.rpartition(".")[0] == last for name in differences.shapes):
            return f". The checkpoint has {theirs[0]} classes, the network {mine[0]}"
    prefix = common_prefix(own)
    if prefix and not any(name.startswith(prefix) for name in differences.unknown):
        return f". All of the network's names start with '{prefix}', the checkpoint's do not"
    return ""


def _is_training_only(name: str) -> bool:
    return _TRAINING_ONLY.fullmatch(name.partition(".")[0]) is not None


def _prefix_note(prefix: str) -> str:
    note = f"The prefix '{prefix}' was removed from every name."
    if prefix[:-1].isdigit():
        note += " Other steps without weights, such as a normalisation, do not show in a checkpoint."
    return note


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _listed(what: str, names: list[str]) -> str:
    return f"{what}: {_first(names)}" if names else ""
