"""GPU code in libraries: other architectures than one are overwritten with zeros, so that the library packs small.

CUDA's compilers put GPU code into an ELF file as fat binaries: a header, then an entry for each architecture. The
header's layout is public in `fatbinary.h` of the CUDA toolkits up to 10. That of an entry is visible in the files that
`nvcc --keep` leaves (`*.fatbin.c`, as numbers), beside what `cuobjdump --list-elf` prints about them:

    header   4 bytes 0xBA55ED50, 2 version 1, 2 size of this header 16, 8 size of all entries
    entry    2 bytes kind (1 PTX, 2 machine code), 2 version, 4 size of this header, 8 size of the code; at 28: 4 bytes
             architecture, such as 90

Sizes stay as they are, so that all offsets in the library remain right; CUDA's driver skips other architectures.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAGIC = struct.pack("<I", 0xBA55ED50)
_HEADER = struct.Struct("<4sHHQ")
_ENTRY = struct.Struct("<HHIQ")
_ARCHITECTURE = struct.Struct("<I")
_ARCHITECTURE_AT = 28
_MACHINE_CODE = 2


def thin(file: Path, architecture: int) -> int:
    """Overwrites the GPU code for other architectures in a file, which should be a private copy.

    A fat binary without machine code for the architecture stays whole: the driver compiles its PTX.

    Returns:
        How many bytes were overwritten.
    """
    zeroed = 0
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as content:
        for entries in _fat_binaries(content):
            if not any(kind == _MACHINE_CODE and found == architecture for kind, found, _, _ in entries):
                continue
            for kind, found, start, size in entries:
                if (kind, found) != (_MACHINE_CODE, architecture):
                    content[start : start + size] = bytes(size)
                    zeroed += size
    return zeroed


def _fat_binaries(content: mmap.mmap) -> Iterator[list[tuple[int, int, int, int]]]:
    """The entries of each fat binary: kind, architecture, and start and size of the code."""
    at = content.find(_MAGIC)
    while 0 <= at <= len(content) - _HEADER.size:
        _, version, header, size = _HEADER.unpack_from(content, at)
        following = at + len(_MAGIC)
        if (version, header) == (1, _HEADER.size) and at + header + size <= len(content):
            following = at + header + size
            yield list(_entries(content, at + header, following))
        at = content.find(_MAGIC, following)


def _entries(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    while at + _ARCHITECTURE_AT + _ARCHITECTURE.size <= end:
        kind, _, header, size = _ENTRY.unpack_from(content, at)
        if header <= _ARCHITECTURE_AT or at + header + size > end:
            return  # not an entry: the rest stays as it is
        yield kind, *_ARCHITECTURE.unpack_from(content, at + _ARCHITECTURE_AT), at + header, size
        at += header + size
