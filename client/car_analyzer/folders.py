"""Finds the photos that a command line names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

ENDINGS = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".mpo")
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Entry:
    """A photo to analyse, or an error in its place.

    Attributes:
        name: The path as given or found.
        error: Why there is no photo; None otherwise.
    """

    name: str
    error: str | None = None


def find_photos(names: list[str], *, recursive: bool) -> list[Entry]:
    """Replace each folder by the photos in it, in natural order.

    Args:
        names: Files, folders, and `-` for standard input.
        recursive: Look into folders within folders too.

    Returns:
        The photos. Files that were named are returned unchecked: an error comes when they are read.
    """
    entries: list[Entry] = []
    for name in names:
        if name != STANDARD_INPUT and os.path.isdir(name):  # noqa: PTH112 - Path would change how it is written
            found = list(_walk(name, recursive=recursive))
            where = "in it or below it" if recursive else "directly in it"
            entries += found or [Entry(name, f"the folder has no photo {where}")]
        else:
            entries.append(Entry(name))
    return entries


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that puts `car2.jpg` before `car10.jpg`, and upper case beside lower case."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts], name


def label_folder(label: str) -> str:
    """A label, or the name of a head, as the name of a folder.

    Letters, digits, spaces and hyphens stay, other characters become `_`. A label without letters and digits becomes
    hexadecimal numbers: `++` is `%2B%2B`.
    """
    if re.search(r"[^\W_]", label):
        return re.sub(r"[^\w -]", "_", label)
    return "".join(f"%{byte:02X}" for byte in label.encode()) or "%00"


def _walk(folder: str, *, recursive: bool) -> list[Entry]:
    try:
        with os.scandir(folder) as listing:
            items = sorted(listing, key=lambda item: natural_key(item.name))
    except OSError as error:
        return [Entry(folder, f"cannot read {folder}: {error.strerror}")]
    entries: list[Entry] = []
    for item in items:
        # Links to folders are not followed: they may form a cycle.
        if item.is_dir(follow_symlinks=False):
            entries += _walk(item.path, recursive=True) if recursive else []
        elif item.name.lower().endswith(ENDINGS) and not item.is_dir():
            entries.append(Entry(item.path))
    return entries
