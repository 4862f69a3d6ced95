"""Goes through a pickle without unpickling it.

PyTorch's weights-only unpickler keeps foreign code out. This is a second lock with a narrower list, and it stops what
the first does not look at: nesting and sharing that take the interpreter's stack or hours, and tensors that claim more
than the file holds (PyTorch allocates first, and its releases differ in what they compare).
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from ..errors import CheckpointError, reason
from .inert import STAND_INS
from .names import MAX_STEPS, mapped
from .sniff import CUT_OFF

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT = 64 << 20
# Hashing a tuple recurses in C and counts shared parts again and again.
_MAX_TUPLE_DEPTH = 50
_MAX_TUPLE_PARTS = 5_000

_REBUILD = "torch._utils."
_STORAGES = {
    f"torch.{name}Storage": size
    for name, size in {
        "Double": 8,
        "Float": 4,
        "Half": 2,
        "BFloat16": 2,
        "Long": 8,
        "Int": 4,
        "Short": 2,
        "Char": 1,
        "Byte": 1,
        "Bool": 1,
        "ComplexFloat": 8,
        "ComplexDouble": 16,
    }.items()
} | {"torch.storage.UntypedStorage": 1}
_TENSORS = frozenset(f"{_REBUILD}{name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"))
_DTYPES = frozenset(f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype))
# Less than PyTorch allows: without its tensors of no storage (meta, sparse), and without bytearray, which takes a size.
ALLOWED = (
    frozenset(_STORAGES)
    | _TENSORS
    | _DTYPES
    | frozenset(STAND_INS)
    | {f"{_REBUILD}_rebuild_parameter", f"{_REBUILD}_rebuild_device_tensor_from_cpu_tensor"}
    | {"collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex"}
    | {"torch.Size", "torch.device", "_codecs.encode"}
)
QUANTISED = ("torch._utils._rebuild_qtensor", "torch.QInt8Storage", "torch.QUInt8Storage", "torch.QInt32Storage")

_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINSTRING", "BINFLOAT", "NONE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DAMAGED = "not a checkpoint that PyTorch can read: its pickle is damaged ({}); copy or download it again."
_MALFORMED = "refused, because its pickle is crafted ({}); get the file from its source again."


class ForeignGlobalsError(Exception):
    """A pickle names something that is not on the list, or takes steps of another protocol; for `pickled` only."""


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass(frozen=True)
class _Made:
    by: str


@dataclass(frozen=True)
class _Storage:
    bytes: int
    item: int


class _Tuple:
    def __init__(self, parts: list[Any]) -> None:
        tuples = [part for part in parts if isinstance(part, _Tuple)]
        self.parts = parts
        self.depth: int = 1 + max((part.depth for part in tuples), default=0)
        self.weight: int = 1 + len(parts) + sum(part.weight for part in tuples)
        if self.depth > _MAX_TUPLE_DEPTH or self.weight > _MAX_TUPLE_PARTS:
            raise CheckpointError(_MALFORMED.format("tuples nested or shared without end"))


# A list, dict, tensor or anything else that is only handed on.
_OTHER = object()


@dataclass
class Audit:
    """Goes through one pickle after another.

    Attributes:
        storage_bytes: A storage's key → the bytes the file holds for it; None if it holds none.
        most_bytes: What all tensors may take together, each view counted.
        storages: Key → bytes, of the storages seen.
        texts: The texts of the last pickle.
    """

    storage_bytes: Callable[[str], int | None]
    most_bytes: int
    storages: dict[str, int] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    _taken: int = 0

    def check(self, stream: BinaryIO) -> None:
        """Reads one pickle to its end.

        Raises:
            ForeignGlobalsError: It is not one that the weights-only unpickler could take.
            CheckpointError: It is damaged or crafted.
        """
        self.texts = set()
        try:
            self._check(stream)
        except (CheckpointError, ForeignGlobalsError):
            raise
        # pickletools raises ValueError, and UnicodeDecodeError, struct.error, OverflowError, ... from below.
        except Exception as error:
            why = reason(error)[:80]
            cut_off = CUT_OFF.format(f"it ends within its pickle ({why})")
            raise CheckpointError(_DAMAGED.format(why) if stream.read(1) else cut_off) from error

    def _check(self, stream: BinaryIO) -> None:
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def to_mark() -> list[Any]:
            start = marks.pop()
            parts = stack[start:]
            del stack[start:]
            return parts

        argument: Any
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step > MAX_STEPS:
                raise CheckpointError(_MALFORMED.format(f"it takes more than {MAX_STEPS:,} steps"))
            match opcode.name:
                case "PROTO" | "STOP":
                    pass
                case name if name in _LITERALS:
                    if type(argument) is str:
                        self.texts.add(argument)
                    stack.append(argument)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(opcode.name == "NEWTRUE")
                case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                    stack.append(_OTHER)
                case "EMPTY_TUPLE":
                    stack.append(_Tuple([]))
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(_Tuple(to_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = _TUPLES[opcode.name]
                    stack[-count:] = [_Tuple(stack[-count:])]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "APPEND":
                    stack.pop()
                case "BUILD":
                    stack.pop()
                    _check_built(stack[-1])
                case "SETITEM":
                    del stack[-2:]
                case "APPENDS" | "SETITEMS":
                    to_mark()
                case "GLOBAL":
                    stack.append(_Name(_allowed(argument)))
                case "REDUCE" | "NEWOBJ":
                    arguments, called = stack.pop(), stack.pop()
                    stack.append(self._called(called, arguments))
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case _:
                    raise ForeignGlobalsError

    def _called(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, _Name) or not isinstance(arguments, _Tuple):
            raise CheckpointError(_MALFORMED.format("it calls what it made itself"))
        parts = arguments.parts
        if called.name in _TENSORS:
            self._tensor(parts, of_dtype=called.name.endswith("_v3"))
        # The other encodings are of no use here, and some take quadratic time.
        if called.name == "_codecs.encode" and (len(parts) != 2 or parts[1] not in ("latin1", "latin-1")):
            raise CheckpointError(_MALFORMED.format("it encodes text in an unusual way"))
        return _Made(called.name)

    def _storage(self, claim: Any) -> _Storage:
        match claim.parts if isinstance(claim, _Tuple) else None:
            case ["storage", _Name(name), str(key), str(), int(items), *view] if name in _STORAGES and items >= 0:
                item = _STORAGES[name]
            case _:
                raise CheckpointError(_MALFORMED.format("a storage is not described as torch.save does"))
        there = self.storage_bytes(key)
        if self.storages.setdefault(key, items * item) != items * item:
            raise CheckpointError(_MALFORMED.format("one storage has two sizes"))
        if there is None or there < items * item:
            raise CheckpointError(
                f"refused, because its tensors claim {items * item:,} bytes of the record {key[:40]!r} and the file "
                f"holds {'none' if there is None else f'{there:,}'}; copy or download it again."
            )
        match view:
            # Files from before 2018 say which part of the storage they mean.
            case [_Tuple(parts=[_, int(start), int(count)])] if start >= 0 and count >= 0 and start + count <= items:
                return _Storage(count * item, item)
            case [] | [None]:
                return _Storage(items * item, item)
            case _:
                raise CheckpointError(_MALFORMED.format("a storage is not described as torch.save does"))

    def _tensor(self, parts: list[Any], *, of_dtype: bool) -> None:
        match parts:
            case [_Storage() as storage, int(offset), _Tuple() as size, _Tuple() as stride, *more]:
                pass
            case _:
                raise CheckpointError(_MALFORMED.format("a tensor is not described as torch.save does"))
        numbers = [offset, *size.parts, *stride.parts]
        if len(size.parts) != len(stride.parts) or not all(type(number) is int and number >= 0 for number in numbers):
            raise CheckpointError(_MALFORMED.format("a tensor's shape is not made of sizes"))
        dtype = next((part for part in more if isinstance(part, _Name)), None) if of_dtype else None
        item = getattr(torch, dtype.name.removeprefix("torch.")).itemsize if dtype else storage.item
        elements = math.prod(size.parts)
        last = offset + sum((count - 1) * step for count, step in zip(size.parts, stride.parts, strict=True))
        if elements and (last + 1) * item > storage.bytes:
            raise CheckpointError(
                f"refused, because a tensor of shape {size.parts} reaches past the {storage.bytes:,} bytes that it is "
                "stored in; copy or download it again."
            )
        # A tensor can repeat its storage without end by strides of zero.
        self._taken += elements * item
        if self._taken > self.most_bytes:
            raise CheckpointError(_MALFORMED.format(f"a tensor of shape {size.parts} is far larger than the file"))


def _check_built(built: Any) -> None:
    # On a tensor this step would give it another storage and shape.
    if not isinstance(built, _Made) or not (built.by in STAND_INS or built.by == "collections.OrderedDict"):
        raise CheckpointError(_MALFORMED.format("it changes what it made"))


def _allowed(argument: str) -> str:
    name = mapped(argument)
    if name not in ALLOWED or argument.count(" ") != 1:
        raise ForeignGlobalsError
    return name
