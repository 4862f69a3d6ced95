"""A zip archive's records, checked before PyTorch reads them with a parser of its own."""

from __future__ import annotations

import contextlib
import io
import re
import stat
import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO, Literal

from ..errors import CheckpointError
from .audit import MAX_TEXT, Audit, ForeignGlobalsError
from .sniff import CUT_OFF, NO_NETWORK, SAVE_INSTEAD

# Enough for ten thousand tensors; a directory that is larger costs minutes to read.
_MAX_DIRECTORY = 16 << 20
# Only programs hold compressed records, and those are source code.
_MAX_INFLATED = 64 << 20
# Where the end is looked for in a file that does not end with it.
_TAIL = 1 << 20

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
_DAMAGED = "not a checkpoint that PyTorch can read: {}; copy or download it again."


@dataclass(frozen=True)
class Archive:
    """The records of a zip that is what it seems.

    Attributes:
        kind: Who wrote it.
        sizes: Record → bytes, by the name inside the archive's one folder.
        folder: The name of that folder with a slash at its end, or nothing.
    """

    kind: Literal["torch.save", "TorchScript", "torch.export"]
    sizes: dict[str, int]
    folder: str


def read_archive(file: BinaryIO, size: int) -> Archive:
    """Lists the records.

    PyTorch's reader and Python's could be made to see different archives. Here every name must be plain and unique,
    and the records must lie one after another, each where and what the directory says: then there is one reading.

    Raises:
        CheckpointError: The archive is damaged, made to deceive, or holds something else.
    """
    _check_end(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            records, directory = archive.infolist(), archive.start_dir
    # A damaged directory surfaces as BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError, ...
    except Exception as error:
        raise CheckpointError(_DAMAGED.format(f"its zip directory is damaged ({error})")) from error
    if not records:
        raise CheckpointError("is an empty zip archive; copy or download it again.")
    for record in records:
        _check_name(record)
    # PyTorch looks names up without regard to case.
    if len({record.filename.lower() for record in records}) < len(records):
        raise CheckpointError(f"refused, because its zip archive holds two records of one name; {SAVE_INSTEAD}.")
    found = _classify([record.filename for record in records])
    _check_layout(file, records, directory)
    _check_compression(records, may_compress=found.kind != "torch.save")
    sizes = {record.filename.removeprefix(found.folder): record.file_size for record in records}
    return Archive(found.kind, sizes, found.folder)


def _check_end(file: BinaryIO, size: int) -> None:
    """Finds the directory where every zip reader looks first, so that a second one cannot be hidden."""
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06") or end[-2:] != b"\x00\x00":
        raise CheckpointError(_describe_end(file, size))
    directory_size = _END.unpack(end)[5]
    if directory_size == 0xFFFFFFFF and size > _END.size + _END64_LOCATOR.size:
        file.seek(size - _END.size - _END64_LOCATOR.size)
        _, _, where, _ = _END64_LOCATOR.unpack(file.read(_END64_LOCATOR.size))
        file.seek(min(where + 40, size))
        directory_size = int.from_bytes(file.read(8), "little")
    if directory_size > _MAX_DIRECTORY:
        raise CheckpointError(f"refused, because its zip directory takes {directory_size:,} bytes; {SAVE_INSTEAD}.")


def _describe_end(file: BinaryIO, size: int) -> str:
    """Says why a zip archive does not end with its directory."""
    start = max(0, size - _TAIL)
    file.seek(start)
    tail = file.read(_TAIL)
    found = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END.size))
    if found >= 0:
        end = start + found + _END.size + int.from_bytes(tail[found + 20 : found + 22], "little")
        if end < size:
            return _DAMAGED.format(f"its zip archive ends at byte {end:,}, and something follows it")
    taken = _tensor_bytes(file)
    of_tensors = f", and its tensors alone take {taken:,}" if taken else ""
    return CUT_OFF.format(f"the file ends after {size:,} bytes without its zip archive's directory{of_tensors}")


def _tensor_bytes(file: BinaryIO) -> int:
    """What the tensors take, where the pickle still tells: torch.save writes it as the first record."""
    file.seek(0)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size:
        return 0
    *_, name_length, extra_length = _LOCAL.unpack(header)
    name = file.read(name_length)
    file.read(extra_length)
    audit = Audit(lambda _key: 1 << 62, 1 << 62)
    if name.endswith(b"/data.pkl"):
        with contextlib.suppress(CheckpointError, ForeignGlobalsError):
            audit.check(io.BytesIO(file.read(MAX_TEXT)))
            return sum(audit.storages.values())
    return 0


def _check_name(record: zipfile.ZipInfo) -> None:
    name = record.orig_filename
    parts = name.removesuffix("/").split("/")
    if (
        name != record.filename
        or not all(parts)
        or not {".", ".."}.isdisjoint(parts)
        or re.search(r"[\x00-\x1f\\]|^[A-Za-z]:", name)
    ):
        raise CheckpointError(
            f"refused, because its zip archive holds the path {name[:80]!r}, which leaves the archive; {SAVE_INSTEAD}."
        )
    if stat.S_ISLNK(record.external_attr >> 16):
        raise CheckpointError(f"refused, because its zip archive holds a symbolic link, {name[:80]!r}; {SAVE_INSTEAD}.")
    if record.flag_bits & 1:
        raise CheckpointError("is an encrypted zip archive; unpack it and give the checkpoint inside.")


def _check_layout(file: BinaryIO, records: list[zipfile.ZipInfo], directory: int) -> None:
    lies = f"refused, because its zip archive's directory does not match its records; {SAVE_INSTEAD}."
    position = 0
    for record in sorted(records, key=lambda each: each.header_offset):
        if not position <= record.header_offset <= directory - _LOCAL.size:
            raise CheckpointError(lies)
        file.seek(record.header_offset)
        header = file.read(_LOCAL.size)
        signature, _, flags, method, _, _, _, packed, _, name_length, extra_length = _LOCAL.unpack(header)
        name = file.read(name_length).decode("utf-8" if flags & 0x800 else "cp437", "replace")
        if signature != b"PK\x03\x04" or name != record.filename or method != record.compress_type:
            raise CheckpointError(lies)
        # Zero with a descriptor behind the data, all ones with the real size in an extra field.
        if packed not in (record.compress_size, 0, 0xFFFFFFFF):
            raise CheckpointError(lies)
        position = record.header_offset + _LOCAL.size + name_length + extra_length + record.compress_size
    if position > directory or min(record.header_offset for record in records) != 0:
        raise CheckpointError(lies)


def _check_compression(records: list[zipfile.ZipInfo], *, may_compress: bool) -> None:
    packed = [record for record in records if record.compress_type != zipfile.ZIP_STORED]
    # PyTorch never compresses tensors, and unpacks a record into memory whole.
    if packed and not may_compress:
        raise CheckpointError(
            f"refused, because its record {packed[0].filename[:80]!r} is compressed, which torch.save never does; load "
            "it where it was made and save it again."
        )
    if sum(record.file_size for record in packed) > _MAX_INFLATED:
        raise CheckpointError(f"refused, because its compressed records are larger than any program; {SAVE_INSTEAD}.")
    if any(record.file_size != record.compress_size for record in records if record not in packed):
        raise CheckpointError(f"refused, because its zip archive's sizes contradict each other; {SAVE_INSTEAD}.")


def _classify(names: list[str]) -> Archive:
    folders = {name.partition("/")[0] + "/" if "/" in name else "" for name in names}
    folder = next(iter(folders)) if len(folders) == 1 else ""
    inside = {name.removeprefix(folder) for name in names}
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if "archive_format" in inside or "serialized_exported_program.json" in inside:
        return Archive("torch.export", {}, folder)
    if folder and "data.pkl" in inside and len(pickles) == 1:
        return Archive("TorchScript" if "constants.pkl" in inside else "torch.save", {}, folder)
    if len(pickles) > 1:
        raise CheckpointError(
            f"refused, because its zip archive holds {len(pickles)} pickles named data.pkl; {SAVE_INSTEAD}."
        )
    if all(name.endswith(".npy") for name in names):
        raise CheckpointError(f"is a NumPy archive (.npz): {NO_NETWORK}.")
    if "config.json" in inside and any(name.endswith(".h5") for name in names):
        raise CheckpointError("is a Keras model (.keras); only PyTorch checkpoints can be exported.")
    if any("/extern_modules" in name or "/aotinductor/" in name for name in names):
        raise CheckpointError(f"is a package with code in it (torch.package or AOTInductor); {SAVE_INSTEAD}.")
    raise CheckpointError(
        "is a zip archive, but not one that torch.save wrote; if the checkpoint is inside, unpack it first."
    )
