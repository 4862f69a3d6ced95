"""The classes and functions that a pickle names."""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, BinaryIO

# A training checkpoint of a large network has some 200,000 steps.
MAX_STEPS = 3_000_000


def named_globals(stream: BinaryIO) -> tuple[list[str], bool]:
    """Lists the classes and functions a pickle names, of any protocol, and whether it was read to its end.

    For messages only: what a pickle may do is never decided on this.
    """
    names: dict[str, None] = {}
    texts: list[str] = []
    memo: dict[int, str] = {}
    argument: Any
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            match opcode.name:
                case "GLOBAL" | "INST":
                    names[mapped(argument)] = None
                case "STACK_GLOBAL":
                    names[".".join(texts[-2:])] = None
                case "MEMOIZE":
                    memo[len(memo)] = texts[-1] if texts else ""
                case "BINPUT" | "LONG_BINPUT" | "PUT":
                    memo[int(argument)] = texts[-1] if texts else ""
                case "BINGET" | "LONG_BINGET" | "GET":
                    texts.append(memo.get(int(argument), ""))
                case _ if isinstance(argument, str):
                    texts.append(argument[:200])
            if step > MAX_STEPS:
                return list(names), False
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the names so far are what can be said
        return list(names), False
    return list(names), True


def mapped(argument: str) -> str:
    """Python 2's names to Python 3's, as both unpicklers do."""
    module, _, name = argument.partition(" ")
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"
