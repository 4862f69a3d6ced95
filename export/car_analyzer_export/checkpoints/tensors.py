"""Reads safetensors files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import CheckpointError
from .sniff import CUT_OFF

if TYPE_CHECKING:
    from .model import StateDict

# A header of ten thousand tensors takes about a megabyte.
_MAX_HEADER = 16 << 20
_DAMAGED = "not a safetensors file that can be read ({}); copy or download it again."


def load_safetensors(file: BinaryIO, size: int) -> tuple[StateDict, dict[str, Any]]:
    """Reads the tensors and the metadata, whose values are decoded where they are JSON.

    Raises:
        CheckpointError: The header does not match the file, or the library for it is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise CheckpointError(
            "is a safetensors file; install the library for it with `pip install safetensors`."
        ) from error
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise CheckpointError(_DAMAGED.format(f"its header claims {length:,} bytes"))
    # The library would take the last of two entries of one name.
    try:
        header = json.loads(file.read(length), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(_DAMAGED.format(f"its header is not valid JSON: {str(error)[:80]}")) from error
    wanted = 8 + length + _bytes_of(header)
    if wanted > size:
        raise CheckpointError(CUT_OFF.format(f"its tensors end at byte {wanted:,}, and the file after {size:,}"))
    file.seek(0)
    try:
        weights = load(file.read())
    # A dtype that PyTorch does not have is a KeyError.
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(_DAMAGED.format(str(error))) from error
    metadata = header.get("__metadata__", {})
    return weights, {name: _decoded(value) for name, value in metadata.items()}


def _bytes_of(header: Any) -> int:
    """Where the last tensor ends; the library finds everything else that is wrong with a header."""
    entries = header.values() if isinstance(header, dict) else ()
    offsets = [entry.get("data_offsets") for entry in entries if isinstance(entry, dict)]
    return max((end for span in offsets if isinstance(span, list) for end in span if type(end) is int), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("it holds a name twice")
    return entries


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError):
        return value
