"""The sources of photos: lists, folders, object storage and standard input, listed without ever holding all names."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, PhotoError
from ..folders import ENDINGS, STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

EXTRA = "'car-analyzer[bulk]'"
INSTALL = f"pip install {EXTRA}"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# What has fsspec's drivers, for pip.
_DRIVERS = {
    **dict.fromkeys(("http", "https"), EXTRA),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs"), "adlfs"),
}


def walk(names: Iterable[str], lists: Iterable[str], *, recursive: bool) -> Iterator[str]:
    """Yield the name of every photo, one by one.

    Args:
        names: Files, folders and URLs; a URL that ends in a slash is a folder.
        lists: Files with one path or URL a line; `-` is standard input.
        recursive: Look into folders within folders too.

    Raises:
        OSError: A folder cannot be read.
        ConfigurationError: A list cannot be read, or a library is missing.
    """
    for name in names:
        if is_url(name) and name.endswith("/"):
            yield from _walk_url(name, recursive=recursive)
        elif not is_url(name) and os.path.isdir(name):  # noqa: PTH112 - Path would change how it is written
            yield from _walk_folder(name, recursive=recursive)
        else:
            yield name
    for file in lists:
        with open_list(file) as lines:
            for line in lines:
                if name := line.rstrip("\r\n"):
                    yield name


def count(names: list[str], lists: list[str]) -> int | None:
    """The number of photos, or None if folders or a pipe have to be read to know it."""
    if any(name.endswith("/") or os.path.isdir(name) for name in names):  # noqa: PTH112
        return None
    total = len(names)
    for file in lists:
        if not Path(file).is_file():
            return None
        with open_list(file) as lines:
            total += sum(1 for line in lines if line.rstrip("\r\n"))
    return total


def open_list(file: str) -> TextIO:
    """Open a list of names, which may not be valid text in any encoding.

    Raises:
        ConfigurationError: It cannot be opened.
    """
    if file == STANDARD_INPUT:
        return open(sys.stdin.fileno(), encoding="utf-8", errors="surrogateescape", newline="\n", closefd=False)
    try:
        return Path(file).open(encoding="utf-8", errors="surrogateescape", newline="\n")
    except OSError as error:
        raise ConfigurationError(f"cannot read the list {file}: {error.strerror}") from error


def read(name: str) -> bytes:
    """The bytes of a photo.

    Raises:
        PhotoError: It cannot be read.
        ConfigurationError: A library is missing.
    """
    try:
        if is_url(name):
            system, path = _file_system(name)
            data = bytes(system.cat_file(path))
        else:
            data = Path(name).read_bytes()
    except ConfigurationError:
        raise
    except Exception as error:
        # Storage libraries have errors of their own. Any of them concerns only this photo.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = os.strerror(errno.ENOENT)
        raise PhotoError(f"cannot read {name}: {reason}", code="photo.unreadable") from error
    if not data:
        raise PhotoError(f"{name} is empty", code="photo.empty")
    return data


def read_argument(name: str) -> bytes:
    """The bytes of a photo that was named on the command line: `-` is standard input.

    Raises:
        PhotoError: It cannot be read.
    """
    if name != STANDARD_INPUT:
        return read(name)
    if sys.stdin is None:
        return b""
    # Not sys.stdin itself: after Ctrl-C, Python could not close it while this thread still reads.
    with open(sys.stdin.fileno(), "rb", closefd=False) as file:
        return file.read()


def is_url(name: str) -> bool:
    """Whether a name is a URL, and not a path."""
    return _SCHEME.match(name) is not None


def _walk_folder(folder: str, *, recursive: bool) -> Iterator[str]:
    with os.scandir(folder) as items:
        for item in items:
            # Links to folders are not followed: they may form a cycle.
            if item.is_dir(follow_symlinks=False):
                if recursive:
                    yield from _walk_folder(item.path, recursive=True)
            elif item.name.lower().endswith(ENDINGS) and not item.is_dir():
                yield item.path


def _walk_url(url: str, *, recursive: bool) -> Iterator[str]:
    system, path = _file_system(url)
    try:
        for folder, _, files in system.walk(path, maxdepth=None if recursive else 1, on_error="raise"):
            for name in files:
                if name.lower().endswith(ENDINGS):
                    yield str(system.unstrip_protocol(f"{folder.rstrip('/')}/{name}"))
    except OSError:
        raise
    except Exception as error:  # storage libraries have errors of their own
        raise OSError(f"cannot list {url}: {error}") from error


def _file_system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise ConfigurationError(f"{url} needs fsspec, which is not installed: {INSTALL}") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        scheme = url.partition(":")[0].lower()
        driver = _DRIVERS.get(scheme)
        raise ConfigurationError(
            f"{scheme}:// needs a library that is missing: " + (f"pip install {driver}" if driver else str(error))
        ) from error
    return system, path
