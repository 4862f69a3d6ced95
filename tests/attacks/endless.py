"""Pickles that take the interpreter's stack, memory, or hours."""

# ruff: noqa: ARG001 - not every attack has use for the canary

from __future__ import annotations

import struct
from pathlib import Path

from .hostile import PROTO, STOP, attack, legacy, text, torch_zip


@attack("nested or shared without end")
def _deep_tuple_as_key(folder: Path, canary: Path) -> Path:
    """Hashing it recurses in C, past the end of the stack."""
    return torch_zip(folder, PROTO + b"})" + b"\x85" * 1_000_000 + b"K\x01s" + STOP)


@attack("nested or shared without end")
def _billion_laughs(folder: Path, canary: Path) -> Path:
    """Each tuple holds the one before it twice; hashing the last takes 2^60 steps."""
    doubled = b"".join(b"q" + bytes([at]) + b"h" + bytes([at]) + b"\x86" for at in range(60))
    return torch_zip(folder, PROTO + b"}K\x01\x85" + doubled + b"K\x01s" + STOP)


@attack("more than 3,000,000 steps")
def _endless_steps(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"(" + b"N" * 4_000_000 + b"l" + STOP)


@attack("holds a list")
def _huge_memo(folder: Path, canary: Path) -> Path:
    steps = b"".join(b"r" + struct.pack("<I", 0xFFFFFFFF - at) for at in range(200_000))
    return torch_zip(folder, PROTO + b"]" + steps + STOP)


@attack("its pickle alone takes")
def _pickle_larger_than_any(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + text("x" * (65 << 20)) + STOP)


@attack("only 101 remain")
def _text_of_4_gigabytes(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"X\xf0\xff\xff\xff" + b"x" * 100 + STOP)


@attack("only 107 remain")
def _text_of_4_gigabytes_in_legacy(folder: Path, canary: Path) -> Path:
    return legacy(folder, PROTO + b"X\xf0\xff\xff\xff" + b"x" * 100 + STOP)


@attack("names builtins.bytearray")
def _bytearray_of_a_terabyte(folder: Path, canary: Path) -> Path:
    """PyTorch's own list of harmless names has this one."""
    return torch_zip(folder, PROTO + b"c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R" + STOP)


@attack("encodes text in an unusual way")
def _slow_encoding(folder: Path, canary: Path) -> Path:
    """Punycode takes quadratic time."""
    ideographs = "".join(chr(0x4E00 + at % 20000) for at in range(300_000))
    return torch_zip(folder, PROTO + b"c_codecs\nencode\n" + text(ideographs) + text("punycode") + b"\x86R" + STOP)


@attack("pop from empty list")
def _stack_underflow(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"\x87\x87RRbbs" + STOP)
