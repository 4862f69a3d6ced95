"""Builds hostile checkpoints: files that must be rejected, without side effects and without much memory or time.

The modules beside this one define them. `ATTACKS` maps a name to a function of (folder, canary): it writes a file into
the folder and returns its path. An attack that runs code would write the canary.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Attack = Callable[[Path, Path], Path]

ATTACKS: dict[str, Attack] = {}
# Part of the message, so that each is rejected for the right reason.
SAYS: dict[str, str] = {}
# Those that are proven to write the canary when they are loaded carelessly.
LIVE: set[str] = set()
# Those that crash PyTorch's reader or keep it busy for hours, so that only the commands, which read in another process,
# answer; each with the seconds that this process gets.
STOPPING: dict[str, float] = {}

WEIGHTS = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
PROTO, STOP = b"\x80\x02", b"."
LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
LEGACY_VERSION = pickle.dumps(1001, 2)
LEGACY_MACHINE = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
NO_KEYS = pickle.dumps([], 2)


def attack(says: str, *, live: bool = False, stopped_after: float | None = None) -> Callable[[Attack], Attack]:
    def register(make: Attack) -> Attack:
        name = make.__name__.removeprefix("_")
        assert name not in ATTACKS
        ATTACKS[name] = make
        SAYS[name] = says
        if live:
            LIVE.add(name)
        if stopped_after is not None:
            STOPPING[name] = stopped_after
        return make

    return register


class Gadget:
    """A class that acts as soon as it is created, or gets its state; any library may have one."""

    def __new__(cls, canary: str = "") -> Gadget:
        if canary:
            Path(canary).write_text("made")
        return super().__new__(cls)

    def __setstate__(self, canary: str) -> None:
        Path(canary).write_text("set")


class Reducing(torch.nn.Module):
    """Looks like a network, and pickles as a call."""

    def __init__(self, canary: Path) -> None:
        super().__init__()
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Claim:
    """Pickles as a storage, as torch.save would describe it."""

    def __init__(self, kind: Any, key: str, items: int) -> None:
        self.claim = ("storage", kind, key, "cpu", items)


class Claiming(pickle._Pickler):
    """Writes claims about storages. Only the pickler in Python accepts tuples as persistent ids."""

    legacy = False

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Claim):
            return None
        return (*value.claim, None) if self.legacy else value.claim


class LegacyClaiming(Claiming):
    legacy = True


def pickled(value: Any, pickler: type[Claiming] = Claiming) -> bytes:
    stream = io.BytesIO()
    pickler(stream, 2).dump(value)
    return stream.getvalue()


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def reduce_system(canary: Path) -> bytes:
    return b"cos\nsystem\n" + text(f"touch {canary}") + b"\x85R"


def tensor(size: Any, stride: Any, *, items: int = 4, offset: Any = 0, kind: Any = torch.FloatStorage) -> Any:
    claim = Claim(kind, "0", items)
    return Call(torch._utils._rebuild_tensor_v2, claim, offset, size, stride, False, OrderedDict())


def write_zip(path: Path, records: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for record, content in records:
            archive.writestr(record, content)
    return path


def records(data: bytes, *more: tuple[str | zipfile.ZipInfo, bytes]) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    """What torch.save would write, with one storage of 16 bytes."""
    return [
        ("archive/data.pkl", data),
        ("archive/byteorder", b"little"),
        ("archive/data/0", b"\0" * 16),
        ("archive/version", b"3\n"),
        *more,
    ]


def good_records(folder: Path) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    file = folder / "good.bin"
    torch.save(WEIGHTS, file)
    with zipfile.ZipFile(file) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def torch_zip(folder: Path, data: bytes) -> Path:
    return write_zip(folder / "hostile.pth", records(data))


def legacy(folder: Path, data: bytes, *, keys: bytes = NO_KEYS, after: bytes = b"") -> Path:
    path = folder / "hostile.pth"
    path.write_bytes(LEGACY_MAGIC + LEGACY_VERSION + LEGACY_MACHINE + data + keys + after)
    return path


def saved(folder: Path, value: Any, **options: Any) -> Path:
    torch.save(value, folder / "hostile.pth", **options)
    return folder / "hostile.pth"


def plain(folder: Path, data: bytes, name: str = "hostile.pth") -> Path:
    (folder / name).write_bytes(data)
    return folder / name
