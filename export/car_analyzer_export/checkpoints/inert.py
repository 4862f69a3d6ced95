"""Stand-ins for the harmless types that training scripts save beside the weights.

PyTorch's weights-only unpickler calls what its allow-list names. Each name here leads to a class or function of this
module that only keeps its arguments: numpy, pathlib and other libraries are never called, so a crafted numpy dtype, for
example, reaches no C code.
"""

from __future__ import annotations

import math
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# numpy's codes of numbers and texts of a fixed width.
_CODE = re.compile(r"f[248]|[iu][1248]|b1|U[1-9]\d{0,3}")

# Facts are small; a crafted value can be endless if its parts are shared.
_MAX_PARTS = 12_000
_MAX_ENTRIES = 200
_MAX_DEPTH = 12


class Opaque:
    """Something of no use here, such as a date."""

    def __init__(self, *_parts: Any) -> None:
        """Ignores its arguments."""

    def __setstate__(self, _state: Any) -> None:
        """Ignores its state."""


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
        """Reads numbers or texts; None where the data is neither."""
        if not isinstance(data, bytes) or not _CODE.fullmatch(self.code):
            return None
        try:
            values: list[Any] = np.frombuffer(data, self.order + self.code).tolist()
        except ValueError:
            return None
        return values


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


def _scalar(dtype: Any, data: Any = b"") -> Any:
    values = dtype.values(data) if isinstance(dtype, Dtype) else None
    return values[0] if values else Opaque()


def _array(*_arguments: Any) -> Array:
    return Array()


def _path(*parts: Any) -> str:
    return "/".join(part for part in parts if type(part) is str)


def _list(values: Iterable[Any] = (), *_arguments: Any) -> list[Any]:
    return list(values)


_LIGHTNING = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
STAND_INS: dict[str, Callable[..., Any]] = {
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    "numpy.ndarray": Array,
    "numpy.dtype": Dtype,
    "argparse.Namespace": Attributes,
    "types.SimpleNamespace": Attributes,
    **{f"{module}.{name}": _path for module in ("pathlib", "pathlib._local") for name in _PATHS},
    "collections.defaultdict": _Dict,
    **{f"{name}.utilities.{part}.AttributeDict": _Dict for name in _LIGHTNING for part in ("parsing", "data")},
    "collections.deque": _list,
    "torch.torch_version.TorchVersion": Opaque,
    **{f"datetime.{name}": Opaque for name in ("datetime", "date", "time", "timedelta", "timezone")},
    # As a defaultdict's factory, as a type among the arguments, or made of nothing.
    **{
        f"builtins.{name}": Opaque
        for name in ("list", "dict", "int", "float", "str", "bool", "tuple", "range", "slice", "frozenset", "bytes")
    },
    # Lightning before 1.5 took the callbacks' classes for keys.
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": Opaque,
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": Opaque,
}


def plain(entries: dict[str, Any]) -> dict[str, Any]:
    """Converts what was unpickled to dicts, lists, texts and numbers; anything else becomes an `Opaque`."""
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
