"""Mutations of valid files, byte by byte; the same seed makes the same ones."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

# Around these, files have types and lengths: where mutations do most.
_LANDMARKS = re.compile(
    rb"\xff[\xc0-\xcf\xda\xdb\xe0-\xe2]|IHDR|PLTE|tRNS|IDAT|IEND|iCCP|acTL|fcTL|fdAT|VP8[ LX]|ANMF|ALPH|EXIF|RIFF|"
    rb"!\xf9|,\0|II\*\0|MM\0\*|ftyp|meta|iloc|iprp|ipco|ispe|av1C|ipma|mdat|pixi|moov|stsz"
)
_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(content: bytes, other: bytes, random: Random) -> bytes:
    """Mutates a file in one to four ways. `other` is another valid file, to splice with."""
    mutant = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 2, 4))):
        random.choice(_MUTATIONS)(mutant, other, random)
    return bytes(mutant)


def _somewhere(content: Sequence[int], random: Random) -> int:
    if random.random() < 0.5:
        return random.randrange(len(content) + 1)
    if random.random() < 0.5:
        return random.randrange(min(len(content), 64) + 1)
    marks = [found.end() for found in _LANDMARKS.finditer(bytes(content))]
    return min(random.choice(marks or [0]) + random.randrange(12), len(content))


def _flip(content: bytearray, _other: bytes, random: Random) -> None:
    for _ in range(random.choice((1, 1, 2, 8, 32))):
        if content:
            content[min(_somewhere(content, random), len(content) - 1)] ^= 1 << random.randrange(8)


def _overwrite(content: bytearray, _other: bytes, random: Random) -> None:
    at = _somewhere(content, random)
    noise = random.randbytes(random.choice((1, 2, 4, 16, 64)))
    content[at : at + len(noise)] = noise


def _set_field(content: bytearray, _other: bytes, random: Random) -> None:
    at = _somewhere(content, random)
    value, order = random.choice(_EXTREMES), random.choice("<>")
    field = struct.pack(f"{order}I", value) if random.random() < 0.5 else struct.pack(f"{order}H", value & 0xFFFF)
    content[at : at + len(field)] = field


def _truncate(content: bytearray, _other: bytes, random: Random) -> None:
    del content[_somewhere(content, random) :]


def _insert(content: bytearray, _other: bytes, random: Random) -> None:
    at = _somewhere(content, random)
    content[at:at] = random.choice((b"\0", b"\xff", random.randbytes(1))) * random.choice((1, 2, 7, 256, 5000))


def _delete(content: bytearray, _other: bytes, random: Random) -> None:
    at = _somewhere(content, random)
    del content[at : at + random.choice((1, 2, 4, 16, 200))]


def _repeat(content: bytearray, _other: bytes, random: Random) -> None:
    at = _somewhere(content, random)
    content[at:at] = content[at : at + random.choice((2, 12, 100, 1000))] * random.choice((1, 3, 20))


def _splice(content: bytearray, other: bytes, random: Random) -> None:
    content[_somewhere(content, random) :] = other[_somewhere(other, random) :]


def _drop_part(content: bytearray, _other: bytes, random: Random) -> None:
    """Drops what is between two landmarks: a whole chunk or segment."""
    marks = [found.start() for found in _LANDMARKS.finditer(bytes(content))]
    if len(marks) > 1:
        number = random.randrange(len(marks) - 1)
        # A chunk or box has its length before its name.
        length = 0 if content[marks[number]] in b"\xff!," else 4
        del content[max(marks[number] - length, 0) : max(marks[number + 1] - length, 0)]


_MUTATIONS: tuple[Callable[[bytearray, bytes, Random], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _set_field,
    _set_field,
    _truncate,
    _insert,
    _delete,
    _drop_part,
    _repeat,
    _splice,
)
