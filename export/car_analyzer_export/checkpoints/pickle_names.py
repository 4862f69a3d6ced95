"""Lists what a pickle names, without unpickling it. For messages only: PyTorch decides what a pickle may do."""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass, field
from typing import Any, BinaryIO

# A training checkpoint of a large network has about 200,000.
_MAX_OPCODES = 1_000_000


@dataclass
class PickleNames:
    """What one pickle names.

    Attributes:
        classes: Full names of its classes and functions, in order.
        texts: Its strings.
        complete: Whether it was read to its end.
    """

    classes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    complete: bool = False


def read_names(stream: BinaryIO) -> PickleNames:
    """Reads one pickle, of any protocol; stops where it is damaged."""
    found = PickleNames()
    texts = found.texts
    memo: dict[int, str] = {}
    argument: Any
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            match opcode.name:
                case "GLOBAL" | "INST":
                    module, _, name = argument.partition(" ")
                    # Python 2's names, as both unpicklers translate them.
                    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                    found.classes.append(f"{module}.{name}")
                case "STACK_GLOBAL":
                    found.classes.append(".".join(texts[-2:]))
                case "MEMOIZE":
                    memo[len(memo)] = texts[-1] if texts else ""
                case "BINPUT" | "LONG_BINPUT" | "PUT":
                    memo[int(argument)] = texts[-1] if texts else ""
                case "BINGET" | "LONG_BINGET" | "GET":
                    texts.append(memo.get(int(argument), ""))
                case _ if isinstance(argument, str):
                    texts.append(argument[:200])
            if count >= _MAX_OPCODES:
                break
        else:
            found.complete = True
    except Exception:  # noqa: BLE001, S110 - a damaged pickle fails in any way; the names so far are still useful
        pass
    found.classes = list(dict.fromkeys(found.classes))
    return found
