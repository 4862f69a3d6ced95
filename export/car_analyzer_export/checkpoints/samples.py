"""Recognises data that torch.save wrote (images, labels, a data set) instead of a network's weights."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CheckpointError
from .inert import Array
from .sniff import NO_NETWORK

if TYPE_CHECKING:
    from collections.abc import Iterator

# Usual names of samples and their labels; names of layers have a dot.
_SAMPLES = re.compile(
    r"(?:(?:train|val|valid|test)_)?(?:x|y|images?|imgs?|pixels|inputs?|data|samples?|features?|targets?|labels?)"
    r"(?:_(?:train|val|valid|test))?|.*\.(?:jpe?g|png|webp|bmp|tiff?|gif)",
    re.IGNORECASE,
)
_DATA_SETS = (torch.utils.data.Dataset, torch.utils.data.DataLoader)
_MAX_DEPTH = 3
_MAX_PARTS = 32


def reject_data(loaded: Any) -> None:
    """Rejects data.

    Raises:
        CheckpointError: What was loaded is data, not a network.
    """
    if not _is_data(loaded):
        return
    what = f"a {type(loaded).__name__}"
    if isinstance(loaded, torch.Tensor):
        what = f"a tensor of shape {list(loaded.shape)}"
    elif isinstance(loaded, Array):
        what = "a NumPy array"
    elif isinstance(loaded, dict):
        what = f"a dict with {', '.join(repr(str(name)[:40]) for name in list(dict.keys(loaded))[:3])}"
    elif isinstance(loaded, (list, tuple)):
        what += f" of {len(loaded)}"
    raise CheckpointError(f"holds {what}: {NO_NETWORK}.")


def _is_data(loaded: Any) -> bool:
    leaves = list(_leaves(loaded, None, _MAX_DEPTH))
    return bool(leaves) and all(
        not isinstance(leaf, torch.nn.Module)
        and (isinstance(leaf, _DATA_SETS) or not isinstance(name, str) or _SAMPLES.fullmatch(name))
        for name, leaf in leaves
    )


def _leaves(value: Any, name: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    """Yields the first tensors, networks and the like, with their keys; a crafted value can be endless."""
    if isinstance(value, (torch.Tensor, Array, torch.nn.Module, *_DATA_SETS)):
        yield name, value
    elif depth and isinstance(value, (list, tuple)):
        for part in value[:_MAX_PARTS]:
            yield from _leaves(part, None, depth - 1)
    elif depth and isinstance(value, dict):
        # Not value.items(): a crafted OrderedDict can have an attribute of that name.
        for key, part in islice(dict.items(value), _MAX_PARTS):
            yield from _leaves(part, key, depth - 1)
