"""Zip archives with false names, offsets or sizes."""

# ruff: noqa: ARG001 - not every attack uses the canary

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

from .hostile import (
    PROTO,
    STOP,
    attack,
    good_records,
    pickled,
    plain,
    records,
    reduce_system,
    tensor,
    torch_zip,
    write_zip,
)


@attack("leaves the archive")
def _path_upwards(folder: Path, canary: Path) -> Path:
    return write_zip(folder / "a.pth", [*good_records(folder), (f"../{canary.name}", b"x")])


@attack("leaves the archive")
def _path_upwards_inside(folder: Path, canary: Path) -> Path:
    return write_zip(folder / "a.pth", [*good_records(folder), (f"good/data/../../../{canary.name}", b"x")])


@attack("leaves the archive")
def _absolute_path(folder: Path, canary: Path) -> Path:
    return write_zip(folder / "a.pth", [*good_records(folder), (str(canary), b"x")])


@attack("leaves the archive")
def _backslashes(folder: Path, canary: Path) -> Path:
    return write_zip(folder / "a.pth", [*good_records(folder), (f"good\\..\\{canary.name}", b"x")])


@attack("symbolic link")
def _symlink(folder: Path, canary: Path) -> Path:
    link = zipfile.ZipInfo("good/data/9")
    link.external_attr = 0o120777 << 16
    return write_zip(folder / "a.pth", [*good_records(folder), (link, str(canary).encode())])


@attack("two records of one name")
def _two_pickles_of_one_name(folder: Path, canary: Path) -> Path:
    good = good_records(folder)
    pickle_name = str(good[0][0])
    path = folder / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in good:
            archive.writestr(name, content)
        archive.writestr(pickle_name.replace("data", "datb"), PROTO + reduce_system(canary) + STOP)
    # Renamed in the bytes, because zipfile warns of such names.
    path.write_bytes(path.read_bytes().replace(b"datb.pkl", b"data.pkl"))
    return path


@attack("two records of one name")
def _two_pickles_by_case(folder: Path, canary: Path) -> Path:
    bad = PROTO + reduce_system(canary) + STOP
    return write_zip(folder / "a.pth", [*good_records(folder), ("good/DATA.PKL", bad)])


@attack("2 pickles named data.pkl")
def _two_pickles_in_two_folders(folder: Path, canary: Path) -> Path:
    bad = PROTO + reduce_system(canary) + STOP
    return write_zip(folder / "a.pth", [*good_records(folder), ("other/data.pkl", bad)])


@attack("holds an empty state_dict")
def _another_name_in_the_directory(folder: Path, canary: Path) -> Path:
    path = write_zip(folder / "a.pth", records(pickle.dumps({}, 2), ("archive/data.pkx", reduce_system(canary))))
    content = path.read_bytes()
    start = content.rindex(b"archive/data.pkx")
    return plain(folder, content[:start] + b"archive/data.pky" + content[start + 16 :])


@attack("starts behind something else")
def _record_out_of_place(folder: Path, canary: Path) -> Path:
    path = write_zip(folder / "a.pth", good_records(folder))
    content = bytearray(path.read_bytes())
    # The first record's entry in the directory points at the second's header.
    second = content.index(b"PK\x03\x04", 4)
    entry = content.index(b"PK\x01\x02")
    content[entry + 42 : entry + 46] = struct.pack("<I", second)
    return plain(folder, bytes(content))


@attack("starts behind something else")
def _archive_behind_an_archive(folder: Path, canary: Path) -> Path:
    first = torch_zip(folder, PROTO + reduce_system(canary) + STOP).read_bytes()
    return plain(folder, first + write_zip(folder / "a.pth", good_records(folder)).read_bytes())


@attack("starts behind something else")
def _archive_hidden_in_the_comment(folder: Path, canary: Path) -> Path:
    path = write_zip(folder / "a.pth", good_records(folder))
    hidden = torch_zip(folder, PROTO + reduce_system(canary) + STOP).read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = hidden
    return path


@attack("something follows it")
def _archive_with_something_behind(folder: Path, canary: Path) -> Path:
    path = write_zip(folder / "a.pth", good_records(folder))
    return plain(folder, path.read_bytes() + PROTO + reduce_system(canary) + STOP)


@attack("is compressed")
def _compressed_record(folder: Path, canary: Path) -> Path:
    return write_zip(folder / "a.pth", good_records(folder), zipfile.ZIP_DEFLATED)


@attack("is compressed")
def _zip_bomb(folder: Path, canary: Path) -> Path:
    path = folder / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickled({"w": tensor((1 << 28,), (1,), items=1 << 28)}))
        with archive.open("archive/data/0", "w") as record:
            for _ in range(256):
                record.write(bytes(1 << 20))
    content = bytearray(path.read_bytes())
    # Claims 4 GB, which no reader should allocate. Its entry in the directory is the last.
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 0xF0000000)
    return plain(folder, bytes(content))


@attack("TorchScript program, which")
def _program_bomb(folder: Path, canary: Path) -> Path:
    path = folder / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", PROTO + b"}" + STOP)
        archive.writestr("archive/constants.pkl", PROTO + b")" + STOP)
        with archive.open("archive/code/__torch__.py", "w") as record:
            for _ in range(128):
                record.write(b" " * (1 << 20))
    return path


@attack("its zip directory is damaged")
def _endless_directory(folder: Path, canary: Path) -> Path:
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0x7FFFFFFF, 0, 0)
    return plain(folder, b"PK\x03\x04" + b"\0" * 100 + end)


@attack("encrypted")
def _encrypted(folder: Path, canary: Path) -> Path:
    content = bytearray(write_zip(folder / "a.pth", good_records(folder)).read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    return plain(folder, bytes(content))
