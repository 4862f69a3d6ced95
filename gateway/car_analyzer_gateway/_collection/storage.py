"""Where the collection is stored: a local folder, or any storage that fsspec can write to."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

from car_analyzer import ConfigurationError

from .names import FOLDERS, parse

_TEMPORARY = ".tmp"
_INSTALL = "pip install 'car-analyzer[collect]'"


class Storage(Protocol):
    """Files by their paths. Any error of the storage is an exception; a missing file is one only for `read`."""

    def sizes(self) -> dict[str, int]:
        """The sizes of all files."""

    def read(self, path: str) -> bytes:
        """Read a file."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file, which appears complete or not at all."""

    def delete(self, path: str) -> None:
        """Delete a file."""

    def delete_temporary(self) -> None:
        """Delete what writes that were interrupted have left."""


class LocalFolder:
    """A folder of this machine that only its owner can read; see `Storage`.

    Raises:
        ConfigurationError: It cannot be created or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigurationError(f"--collect {folder}: the folder cannot be written: {error.strerror}") from error

    def sizes(self) -> dict[str, int]:
        """The sizes of all files."""
        found: dict[str, int] = {}
        for folder, _, files in os.walk(self._folder, onerror=self._raise_if_needed):
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # another gateway has deleted it
                    found[path.relative_to(self._folder).as_posix()] = path.stat().st_size
        return found

    def read(self, path: str) -> bytes:
        """Read a file."""
        return (self._folder / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Write a file under a temporary name, and rename it."""
        target = self._folder / path
        for attempt in (1, 2):
            try:
                self._make_folder(target.parent)
                return self._write(target, data)
            except FileNotFoundError:
                # Another gateway, which shares the folder, has deleted the empty folder, or the temporary file.
                if attempt == 2:
                    raise
        return None

    def delete(self, path: str) -> None:
        """Delete a file, and folders that are empty then."""
        target = self._folder / path
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            for folder in target.relative_to(self._folder).parents[:-1]:
                (self._folder / folder).rmdir()

    def delete_temporary(self) -> None:
        """Delete what writes that were interrupted have left."""
        for path in self._folder.rglob(f".*{_TEMPORARY}"):
            if parse(path.name[1 : -len(_TEMPORARY)]) is not None:
                path.unlink(missing_ok=True)

    def _raise_if_needed(self, error: OSError) -> None:
        top = Path(error.filename).relative_to(self._folder).parts[:1]
        # Another gateway may delete a folder that is empty. A disk has a `lost+found`, which only root can read.
        if not isinstance(error, FileNotFoundError) and (not top or top[0] in FOLDERS):
            raise error

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            # With `parents=True`, mkdir would give the parents the default permissions.
            self._make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)

    def _write(self, target: Path, data: bytes) -> None:
        temporary = target.with_name(f".{target.name}{_TEMPORARY}")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class Bucket:
    """Storage behind a URL; see `Storage`. It connects at the first use.

    Raises:
        ConfigurationError: A library is missing, or no library knows the URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._system: Any = None
        self._root = ""
        scheme = url.partition("://")[0]
        try:
            import fsspec

            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            missing = _INSTALL if getattr(error, "name", None) == "fsspec" else f"{_INSTALL}; {error}"
            raise ConfigurationError(f"--collect {scheme}://: a library is missing: {missing}") from error
        except ValueError as error:
            raise ConfigurationError(f"--collect {scheme}://: {error}") from error

    def sizes(self) -> dict[str, int]:
        """The sizes of all files."""
        system = self._connect()
        system.invalidate_cache()
        try:
            found = system.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._root) + 1
        return {path[start:]: int(details["size"] or 0) for path, details in found.items()}

    def read(self, path: str) -> bytes:
        """Read a file."""
        return bytes(self._connect().cat_file(f"{self._root}/{path}"))

    def write(self, path: str, data: bytes) -> None:
        """Write a file. An object of a bucket appears when it is complete."""
        system, target = self._connect(), f"{self._root}/{path}"
        try:
            system.pipe_file(target, data)
        except FileNotFoundError:
            # Storage with real folders, such as SFTP.
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.pipe_file(target, data)

    def delete(self, path: str) -> None:
        """Delete a file."""
        with contextlib.suppress(FileNotFoundError):
            self._connect().rm_file(f"{self._root}/{path}")

    def delete_temporary(self) -> None:
        """Do nothing: there are no temporary files."""

    def _connect(self) -> Any:
        if self._system is None:
            import fsspec

            system, root = fsspec.core.url_to_fs(self._url)
            self._system, self._root = system, root.rstrip("/")
        return self._system


def open_storage(url: str) -> Storage:
    """The storage for a folder or URL.

    Raises:
        ConfigurationError: A folder is missing or cannot be written, or a library is missing.
    """
    scheme, separator, path = url.partition("://")
    if url == "file://":
        raise ConfigurationError("--collect file://: the folder is missing")
    if not separator or scheme == "file":
        try:
            folder = Path(path if separator else url).expanduser().resolve()
        except RuntimeError as error:
            raise ConfigurationError(f"--collect {url}: there is no such user, or no home directory") from error
        return LocalFolder(folder)
    return Bucket(url)
