"""Finds the network's weights in what was loaded, and validates them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CheckpointError
from .inert import Array, plain
from .samples import reject_data
from .sniff import listed

if TYPE_CHECKING:
    from .model import StateDict

_MODEL_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
_EMA_KEYS = ("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema")
_OPTIMIZER = re.compile(r"optim|sched|scaler|param_groups|^opt$", re.IGNORECASE)
_LIGHTNING = "pytorch-lightning_version"

_ADAPTER = re.compile(r"(^|[._])(lora|loha|lokr|hada|ia3|adapters?)([._]|$)", re.IGNORECASE)
_QUANTISED = re.compile(r"(^|\.)(_packed_params|qweight|qzeros|quant_map|quant_state|absmax|SCB)(\.|$)")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# What tensors may take beyond their storages: a small buffer can be stored expanded.
_MAX_EXPANDED = 64 << 20


@dataclass(frozen=True)
class Selection:
    """The network's part of a checkpoint.

    Attributes:
        weights: Its state_dict; None with a `module`.
        module: The network itself.
        container: The kind of file, for people.
        beside: The other entries, as plain values.
        notes: What was chosen or left out.
    """

    weights: StateDict | None
    module: torch.nn.Module | None
    container: str
    beside: dict[str, Any]
    notes: tuple[str, ...]


def select(loaded: Any) -> Selection:
    """Finds the weights.

    Raises:
        CheckpointError: There are none, or those of several networks, or it is data.
    """
    if isinstance(loaded, torch.nn.Module):
        return Selection(None, loaded, "pickled network", {}, ())
    reject_data(loaded)
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"holds a {type(loaded).__name__}, not a state_dict (names and tensors); save it with "
            "torch.save(network.state_dict(), file)."
        )
    # Not loaded.items(): a crafted OrderedDict can have an attribute of that name.
    entries = {str(name): value for name, value in dict.items(loaded)}
    if not entries:
        raise CheckpointError("holds an empty state_dict; save it again from the trained network.")
    if all(isinstance(value, torch.Tensor) for value in entries.values()):
        return Selection(entries, None, "state_dict", {}, ())
    key, notes = _choose(entries)
    if key is None:
        return _flat(entries)
    found = _weights_in(entries[key])
    beside = plain({name: value for name, value in entries.items() if name != key and not _is_bulk(name, value)})
    if isinstance(found, torch.nn.Module):
        return Selection(None, found, "pickled network", beside, notes)
    assert found is not None  # noqa: S101 - that is how the entry was chosen
    extra = [name for name in entries[key] if found.keys() <= entries[key].keys() and name not in found]
    if extra:
        notes += (f"Entries of '{key}' that are no tensors were left out: {listed(extra)}.",)
    return Selection(found, None, _container(key, beside), beside, notes)


def check_weights(weights: StateDict) -> StateDict:
    """Returns the weights as plain tensors.

    Raises:
        CheckpointError: They are not finite, or not a whole network's in ordinary numbers.
    """
    # Drops hooks and attributes that the file attached.
    weights = {name: torch.Tensor.detach(tensor) for name, tensor in weights.items()}
    floats = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
    for name, tensor in weights.items():
        odd = name in floats and tensor.dtype not in _FLOATS
        if tensor.is_quantized or odd or _QUANTISED.search(name):
            raise CheckpointError(
                f"holds quantised weights ({name[:80]!r}), which cannot be exported; save network.state_dict() before "
                "it is quantised."
            )
        if tensor.is_meta or tensor.is_nested or tensor.layout is not torch.strided:
            raise CheckpointError(
                f"holds a tensor of a kind that cannot be exported ({name[:80]!r}: meta, sparse or nested); save "
                "network.state_dict() with plain tensors."
            )
    # Strides of zero can repeat a storage endlessly.
    expanded = sum(max(0, tensor.nbytes - tensor.untyped_storage().nbytes()) for tensor in weights.values())
    if expanded > _MAX_EXPANDED:
        raise CheckpointError("rejected, because its tensors are far larger than the file; get the file again.")
    if not floats:
        raise CheckpointError(
            "holds no floating-point tensors, so no network's weights; save it with "
            "torch.save(network.state_dict(), file)."
        )
    if all(_ADAPTER.search(name) for name in floats):
        raise CheckpointError(
            f"holds only an adapter's weights (LoRA: {next(iter(floats))[:80]!r}); merge it into its base network and "
            "save that."
        )
    for name, tensor in floats.items():
        if not _is_finite(name, tensor):
            raise CheckpointError(
                f"the weights {name[:80]!r} hold NaN or infinity, so the training failed; export an earlier checkpoint."
            )
    return weights


def _is_finite(name: str, tensor: torch.Tensor) -> bool:
    # A finite sum means finite parts, and needs no second tensor; an infinite one may have overflowed.
    if math.isfinite(tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32).item()):
        return True
    if bool(torch.isfinite(tensor).all()):
        return True
    # Attention masks hold -inf.
    return "mask" in name and bool((torch.isfinite(tensor) | torch.isneginf(tensor)).all())


def _choose(entries: dict[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    plain_keys = [key for key in _MODEL_KEYS if _weights_in(entries.get(key)) is not None]
    ema_keys = [key for key in _EMA_KEYS if _weights_in(entries.get(key)) is not None]
    keys = plain_keys + ema_keys
    if len(keys) > 1:
        return keys[0], (f"Holds several sets of weights ({', '.join(keys)}); '{keys[0]}' is used.",)
    if keys:
        return keys[0], (f"Holds only averaged weights ('{keys[0]}'); they are used.",) if ema_keys else ()
    others = [
        key
        for key, value in entries.items()
        if not _OPTIMIZER.search(key) and isinstance(value, (dict, torch.nn.Module)) and _weights_in(value) is not None
    ]
    if len(others) > 1:
        raise CheckpointError(f"holds several networks ({listed(others)}); save the one to export by itself.")
    if others:
        return others[0], (f"The weights are from the entry '{others[0]}'.",)
    return None, ()


def _flat(entries: dict[str, Any]) -> Selection:
    """Splits weights and other entries in one dict; names of layers have a dot, that of a lone tensor has none."""
    weights = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    if any("." in name for name in weights):
        beside = plain({name: value for name, value in entries.items() if name not in weights})
        note = f"Entries that are no tensors were left out of the weights: {listed(list(beside))}."
        return Selection(weights, None, "state_dict", beside, (note,))
    if any(_OPTIMIZER.search(name) for name in entries):
        raise CheckpointError(
            "holds an optimizer's or scheduler's state and no network's weights; give the file that "
            "network.state_dict() went to."
        )
    name, value = next((name, value) for name, value in entries.items() if not isinstance(value, torch.Tensor))
    kind = "NumPy array" if isinstance(value, Array) else type(value).__name__
    raise CheckpointError(
        f"not a plain state_dict: the entry {name[:80]!r} is a {kind}, not a tensor; save it with "
        "torch.save(network.state_dict(), file)."
    )


def _weights_in(value: Any, depth: int = 2) -> StateDict | torch.nn.Module | None:
    if isinstance(value, torch.nn.Module):
        return value
    if not isinstance(value, dict) or not all(type(name) is str for name in dict.keys(value)):
        return None
    tensors = {name: part for name, part in dict.items(value) if isinstance(part, torch.Tensor)}
    if tensors and (len(tensors) == len(value) or any("." in name for name in tensors)):
        return tensors
    inner = (_weights_in(dict.get(value, key), depth - 1) for key in (*_MODEL_KEYS, "module")) if depth else iter(())
    return next((found for found in inner if found is not None), None)


def _is_bulk(name: str, value: Any) -> bool:
    return bool(_OPTIMIZER.search(name)) or isinstance(value, torch.Tensor) or _weights_in(value) is not None


def _container(key: str, beside: dict[str, Any]) -> str:
    if _LIGHTNING in beside:
        return "Lightning checkpoint"
    epoch = beside.get("epoch")
    return f"training checkpoint ({key}{f', epoch {epoch}' if type(epoch) is int and 0 <= epoch < 1 << 31 else ''})"
