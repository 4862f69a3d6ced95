"""Stand-ins for the harmless types that training scripts save beside the weights.

PyTorch's weights-only unpickler calls what its allow-list names. Nothing here lets it call numpy, pathlib or any other
library: each name leads to a function or class of this module, which only keeps its arguments. So a crafted numpy
dtype, say, reaches no C code.
"""

from __future__ import annotations

import math
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# numpy's code of a type → struct's.
_NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
_NUMBERS |= {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}

# What facts are read from is small; a crafted value can be endless when its parts are shared.
_MAX_PARTS = 12_000
_MAX_ENTRIES = 200
_MAX_DEPTH = 12


class Opaque:
    """Something that is of no use here, such as a date."""

    def __init__(self, *_parts: Any) -> None:
        """Takes and forgets what it was made of."""

    def __setstate__(self, _state: Any) -> None:
        """Forgets what it held."""


class Attributes:
    """An argparse.Namespace or the like."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        """Keeps the attributes as a dict, so that none of them becomes one of this object."""
        self.values = state if type(state) is dict else {}


class Dtype:
    """A numpy.dtype: its code, such as `f4`, and its byte order."""

    def __init__(self, code: Any = "", *_flags: Any) -> None:
        self.code = code if isinstance(code, str) else ""
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        """Keeps the byte order alone."""
        if type(state) is tuple and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]

    def values(self, data: Any) -> list[Any] | None:
        """Reads numbers or texts, or gives None."""
        if not isinstance(data, bytes):
            return None
        if self.code in _NUMBERS:
            one = struct.Struct(self.order + _NUMBERS[self.code])
            return [value for (value,) in one.iter_unpack(data)] if len(data) % one.size == 0 else None
        if self.code.startswith("U") and self.code[1:].isdecimal() and 0 < (width := 4 * int(self.code[1:])) < 1 << 16:
            encoding = "utf-32-le" if self.order == "<" else "utf-32-be"
            return [
                data[at : at + width].decode(encoding, "replace").rstrip("\x00") for at in range(0, len(data), width)
            ]
        return None


class Array:
    """A numpy.ndarray: a flat list of its values, where they are numbers or texts."""

    def __init__(self, *_parts: Any) -> None:
        self.values: list[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        """Keeps the values of an array of one dimension; facts have no more."""
        if type(state) is not tuple or len(state) != 5:
            return
        _, shape, dtype, _, data = state
        if type(shape) is tuple and len(shape) <= 1 and isinstance(dtype, Dtype):
            self.values = data if type(data) is list else dtype.values(data)


class _Dict:
    """A dict of another class, which becomes a plain one: the unpickler fills no other."""

    def __new__(cls, *_arguments: Any) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


class _Text:
    """A str of another class."""

    def __new__(cls, text: Any = "", *_arguments: Any) -> str:  # type: ignore[misc]
        return text if type(text) is str else ""


def _scalar(dtype: Any, data: Any = b"") -> Any:
    values = dtype.values(data) if isinstance(dtype, Dtype) else None
    return values[0] if values else Opaque()


def _array(*_arguments: Any) -> Array:
    return Array()


def _path(*parts: Any) -> str:
    return "/".join(part for part in parts if type(part) is str)


def _list(values: Iterable[Any] = (), *_arguments: Any) -> list[Any]:
    return list(values) if type(values) in (list, tuple) else []


def _bytes(*_arguments: Any) -> bytes:
    return b""


_LIGHTNING = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
_BY_STAND_IN: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (_scalar, ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")),
    (_array, ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")),
    (Array, ("numpy.ndarray",)),
    (Dtype, ("numpy.dtype",)),
    (Attributes, ("argparse.Namespace", "types.SimpleNamespace")),
    (
        _path,
        tuple(
            f"{module}.{name}"
            for module in ("pathlib", "pathlib._local")
            for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
        ),
    ),
    (
        _Dict,
        (
            "collections.defaultdict",
            *(f"{name}.utilities.{part}.AttributeDict" for name in _LIGHTNING for part in ("parsing", "data")),
        ),
    ),
    (_list, ("collections.deque", "builtins.frozenset")),
    (_bytes, ("builtins.bytes",)),
    (_Text, ("torch.torch_version.TorchVersion",)),
    (
        Opaque,
        (
            *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
            # As a defaultdict's factory, or as a type among the arguments.
            *(
                f"builtins.{name}"
                for name in ("list", "dict", "int", "float", "str", "bool", "tuple", "range", "slice")
            ),
            # Lightning before 1.5 took callbacks' classes for keys.
            "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
            "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
        ),
    ),
)
STAND_INS: dict[str, Callable[..., Any]] = {name: stand_in for stand_in, names in _BY_STAND_IN for name in names}


def plain(entries: dict[str, Any]) -> dict[str, Any]:
    """Turns what was unpickled into dicts, lists, texts and numbers; anything else becomes an `Opaque`."""
    return {name: _plain(value, [_MAX_PARTS], 0) for name, value in islice(entries.items(), _MAX_ENTRIES)}


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_DEPTH:
        return Opaque()
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Array):
        value = value.values
    if isinstance(value, Attributes):
        value = value.values
    if isinstance(value, (dict, list, tuple)) and len(value) > budget[0]:
        return Opaque()
    if isinstance(value, dict):
        # Not value.items(): a crafted OrderedDict can have an attribute of that name.
        return {
            key: _plain(part, budget, depth + 1)
            for key, part in dict.items(value)
            if isinstance(key, (str, int, float))
        }
    if isinstance(value, (list, tuple)):
        return [_plain(part, budget, depth + 1) for part in value]
    return Opaque()
