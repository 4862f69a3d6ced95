"""What a zip archive holds, and whether torch.save can have written it."""

from __future__ import annotations

import re
import stat
import zipfile
from dataclasses import dataclass
from typing import BinaryIO, Literal

from ..errors import CheckpointError
from .sniff import CUT_OFF, NO_NETWORK, SAVE_INSTEAD

_END_RECORD = b"PK\x05\x06"
_END_BYTES = 22
# Where the end record is searched in a file that does not end with it.
_TAIL = 1 << 20
# A plain relative path: no part is empty, `.` or `..`.
_INSIDE = re.compile(r"(?!\w:)(?:(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f]+(?:/|$))+")
_DAMAGED = "not a checkpoint that PyTorch can read: {}; copy or download it again."


@dataclass(frozen=True)
class Archive:
    """A zip archive of PyTorch's.

    Attributes:
        kind: Which function wrote it.
        folder: Its one folder, with a slash at the end; or nothing.
        records: The names of its records.
    """

    kind: Literal["torch.save", "TorchScript", "torch.export"]
    folder: str
    records: tuple[str, ...]


def read_archive(file: BinaryIO, size: int) -> Archive:
    """Reads the directory of a zip archive.

    Raises:
        CheckpointError: The archive is damaged or crafted, or PyTorch did not write it.
    """
    _check_end(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    # A damaged directory surfaces as BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError, ...
    except Exception as error:
        raise CheckpointError(_DAMAGED.format(f"its zip directory is damaged ({error})")) from error
    if not records:
        raise CheckpointError("is an empty zip archive; copy or download it again.")
    for record in records:
        _check_record(record)
    names = tuple(record.filename for record in records)
    # PyTorch ignores case when it looks up a record.
    if len({name.lower() for name in names}) < len(names):
        raise CheckpointError(f"rejected, because its zip archive holds two records of one name; {SAVE_INSTEAD}.")
    if min(record.header_offset for record in records) > 0:
        raise CheckpointError(f"rejected, because its zip archive starts behind something else; {SAVE_INSTEAD}.")
    found = _classify(names)
    # PyTorch never compresses tensors, and reads a whole record into memory.
    packed = [record for record in records if record.compress_type or record.compress_size != record.file_size]
    if packed and found.kind == "torch.save":
        raise CheckpointError(
            f"rejected, because its record {packed[0].filename[:80]!r} is compressed, which torch.save never does; "
            "load it where it was made and save it again."
        )
    return found


def _check_end(file: BinaryIO, size: int) -> None:
    file.seek(max(0, size - _END_BYTES))
    end = file.read()
    if end.startswith(_END_RECORD) and end.endswith(b"\0\0"):
        return
    file.seek(max(0, size - _TAIL))
    if _END_RECORD in file.read():
        raise CheckpointError(_DAMAGED.format("something follows its zip archive"))
    raise CheckpointError(CUT_OFF.format(f"the file ends after {size:,} bytes without its zip archive's directory"))


def _check_record(record: zipfile.ZipInfo) -> None:
    name = record.orig_filename
    if not _INSIDE.fullmatch(name):
        raise CheckpointError(
            f"rejected, because its zip archive holds the path {name[:80]!r}, which leaves the archive; {SAVE_INSTEAD}."
        )
    if stat.S_ISLNK(record.external_attr >> 16):
        raise CheckpointError(
            f"rejected, because its zip archive holds a symbolic link, {name[:80]!r}; {SAVE_INSTEAD}."
        )
    if record.flag_bits & 1:
        raise CheckpointError("is an encrypted zip archive; unpack it and give the checkpoint inside.")


def _classify(names: tuple[str, ...]) -> Archive:
    folders = {name.partition("/")[0] + "/" if "/" in name else "" for name in names}
    folder = folders.pop() if len(folders) == 1 else ""
    inside = {name.removeprefix(folder) for name in names}
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if "archive_format" in inside or "serialized_exported_program.json" in inside:
        return Archive("torch.export", folder, names)
    if folder and "data.pkl" in inside and len(pickles) == 1:
        return Archive("TorchScript" if "constants.pkl" in inside else "torch.save", folder, names)
    if len(pickles) > 1:
        raise CheckpointError(
            f"rejected, because its zip archive holds {len(pickles)} pickles named data.pkl; {SAVE_INSTEAD}."
        )
    if all(name.endswith(".npy") for name in names):
        raise CheckpointError(f"is a NumPy archive (.npz): {NO_NETWORK}.")
    if "config.json" in inside and any(name.endswith(".h5") for name in names):
        raise CheckpointError("is a Keras model (.keras); only PyTorch checkpoints can be exported.")
    if any("/extern_modules" in name or "/aotinductor/" in name for name in names):
        raise CheckpointError(f"is a package with code in it (torch.package or AOTInductor); {SAVE_INSTEAD}.")
    raise CheckpointError(
        "is a zip archive, but torch.save did not write it; if the checkpoint is inside, unpack it first."
    )
