"""Pickles that exhaust the interpreter's stack, memory or time."""

# ruff: noqa: ARG001 - not every attack uses the canary

from __future__ import annotations

import struct
from pathlib import Path

from .hostile import PROTO, STOP, attack, legacy, text, torch_zip


@attack("ended the process that ran it (segmentation fault) while loading hostile.pth", stopped_after=600)
def _deep_tuple_as_key(folder: Path, canary: Path) -> Path:
    """Hashing it recurses in C, past the end of the stack."""
    return torch_zip(folder, PROTO + b"})" + b"\x85" * 1_000_000 + b"K\x01s" + STOP)


@attack("stopped while loading hostile.pth, which took longer than", stopped_after=1)
def _billion_laughs(folder: Path, canary: Path) -> Path:
    """Each tuple holds the one before it twice; hashing the last takes 2^60 steps."""
    doubled = b"".join(b"q" + bytes([at]) + b"h" + bytes([at]) + b"\x86" for at in range(60))
    return torch_zip(folder, PROTO + b"}K\x01\x85" + doubled + b"K\x01s" + STOP)


@attack("its pickle is damaged")
def _endless_steps(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"(" + b"N" * 4_000_000 + b"l" + STOP)


@attack("holds a list")
def _huge_memo(folder: Path, canary: Path) -> Path:
    steps = b"".join(b"r" + struct.pack("<I", 0xFFFFFFFF - at) for at in range(200_000))
    return torch_zip(folder, PROTO + b"]" + steps + STOP)


@attack("holds a str, not a state_dict")
def _pickle_larger_than_any(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + text("x" * (65 << 20)) + STOP)


@attack("not a checkpoint that PyTorch can read (EOFError)")
def _text_of_4_gigabytes(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"X\xf0\xff\xff\xff" + b"x" * 100 + STOP)


@attack("takes far more memory")
def _text_of_4_gigabytes_in_legacy(folder: Path, canary: Path) -> Path:
    return legacy(folder, PROTO + b"X\xf0\xff\xff\xff" + b"x" * 100 + STOP)


@attack("takes far more memory")
def _bytearray_of_a_terabyte(folder: Path, canary: Path) -> Path:
    """PyTorch's own list of harmless names has this one."""
    return torch_zip(folder, PROTO + b"c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R" + STOP)


@attack("stopped while loading hostile.pth, which took longer than", stopped_after=1)
def _slow_encoding(folder: Path, canary: Path) -> Path:
    """Punycode takes quadratic time."""
    ideographs = "".join(chr(0x4E00 + at % 20000) for at in range(300_000))
    return torch_zip(folder, PROTO + b"c_codecs\nencode\n" + text(ideographs) + text("punycode") + b"\x86R" + STOP)


@attack("takes far more memory")
def _text_copied_without_end(folder: Path, canary: Path) -> Path:
    copies = b"c_codecs\nencode\nq\x00" + text("x" * (1 << 20)) + text("latin1") + b"\x86q\x01R"
    copies += (b"h\x00h\x01R") * 5000
    return torch_zip(folder, PROTO + b"](" + copies + b"e" + STOP)


@attack("list index out of range")
def _stack_underflow(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"\x87\x87RRbbs" + STOP)
