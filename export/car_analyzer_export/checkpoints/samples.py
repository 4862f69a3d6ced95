"""Recognises data that torch.save wrote (images, labels, a data set) instead of a network's weights."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import torch

from ..errors import CheckpointError
from .inert import Array
from .sniff import NO_NETWORK

# Usual names of samples and their labels; names of layers have a dot.
_SAMPLES = re.compile(
    r"(?:(?:train|val|valid|test)_)?(?:x|y|images?|imgs?|pixels|inputs?|data|samples?|features?|targets?|labels?)"
    r"(?:_(?:train|val|valid|test))?|.*\.(?:jpe?g|png|webp|bmp|tiff?|gif)",
    re.IGNORECASE,
)
_DATA = (Array, torch.utils.data.Dataset, torch.utils.data.DataLoader)
_MAX_DEPTH = 3
_LOOKED_AT = 32


def reject_data(loaded: Any) -> None:
    """Rejects data.

    Raises:
        CheckpointError: What was loaded is data, not a network.
    """
    if not _is_data(loaded, _MAX_DEPTH):
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


def _is_data(value: Any, depth: int) -> bool:
    if isinstance(value, (torch.Tensor, *_DATA)):
        return True
    # Parts without tensors (names of classes, a date) prove nothing.
    parts = [(name, part) for name, part in _parts(value) if _holds_tensors(part, depth - 1)]
    return bool(parts) and all(_is_sample(name, part) and _is_data(part, depth - 1) for name, part in parts)


def _is_sample(name: Any, part: Any) -> bool:
    has_name = isinstance(name, str) and isinstance(part, (torch.Tensor, Array))
    return not has_name or _SAMPLES.fullmatch(name) is not None


def _holds_tensors(value: Any, depth: int) -> bool:
    if isinstance(value, (torch.Tensor, torch.nn.Module, *_DATA)):
        return True
    return depth > 0 and any(_holds_tensors(part, depth - 1) for _, part in _parts(value))


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """The first parts of a list or dict; a crafted one can be endless when its parts are shared."""
    if isinstance(value, (list, tuple)):
        return [(None, part) for part in value[:_LOOKED_AT]]
    # Not value.items(): a crafted OrderedDict can have an attribute of that name.
    return list(islice(dict.items(value), _LOOKED_AT)) if isinstance(value, dict) else []
