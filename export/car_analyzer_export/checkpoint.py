"""Reads checkpoints without running what is inside them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

StateDict = dict[str, torch.Tensor]


def load_checkpoint(path: Path, *, trust_pickle: bool = False) -> StateDict | torch.nn.Module:
    """Loads a file that `torch.save` wrote, onto the CPU.

    Args:
        path: The file.
        trust_pickle: Also accept a whole pickled module. Unpickling it runs whatever code the file names.

    Returns:
        A state_dict, or the module itself if the file holds one and is trusted.

    Raises:
        CheckpointError: The file is missing, no checkpoint, holds something else, or would have to be trusted.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    # A damaged file surfaces as nearly any error: RuntimeError (zip), EOFError, KeyError, ValueError, ImportError, ...
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a checkpoint that PyTorch can read ({_first_line(error)}); is the file complete?"
        ) from error
    if isinstance(loaded, torch.nn.Module):
        return loaded
    return _state_dict(path, loaded)


def _state_dict(path: Path, loaded: Any) -> StateDict:
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a state_dict (names and tensors).")
    if not loaded:
        raise CheckpointError(f"{path}: holds an empty state_dict.")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(
                f"{path}: not a plain state_dict: the entry {name!r} is a {type(tensor).__name__}, not a tensor. "
                "Save it with torch.save(network.state_dict(), file)."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: the weights {name!r} hold NaN or infinity; the training failed.")
    return dict(loaded)


def _refusal(path: Path, message: str) -> str:
    # PyTorch's message is a page long; the one fact in it is the name that was refused.
    found = re.search(r"GLOBAL ([\w.]+)", message)
    what = f"it names {found[1]}, which runs code" if found else "it is not a plain state_dict"
    return (
        f"{path}: refused, because {what} when it is loaded. Save network.state_dict() instead of the network, "
        "or pass --trust-pickle if you made this file yourself."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
