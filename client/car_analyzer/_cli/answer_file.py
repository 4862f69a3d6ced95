"""The answers of a bulk run in a file: one JSON object a line, each photo once, however often the run was killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from .._results import Analysis, Failure

_START = b'{"image": '


class AnswerFile(Output):
    """Appends answers to a file; entering the context opens it. The file is the only record of what is done.

    `analysed` and `failed` include the answers of earlier runs.

    Args:
        file: Created if it does not exist; its answers are kept.
        retry_errors: Remove the photos that failed, so that they are analysed again.
        with_model: See `Output`.

    Raises:
        ConfigurationError: Another run writes to the file, or it has a line that this command did not write.
        OSError: The file cannot be written.
    """

    def __init__(self, file: str, *, retry_errors: bool = False, with_model: bool = False) -> None:
        super().__init__(with_model=with_model)
        self._path = Path(file)
        self._retry_errors = retry_errors
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> AnswerFile:
        # On disk as soon as it is large: millions of names would fill the memory.
        self._names = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._resources.callback(self._names.close)
        self._names.execute("PRAGMA journal_mode = OFF")
        self._names.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
        try:
            self._file = self._open(self._path)
            if self._retry_errors:
                self._file = self._without_errors()
            self._read_names()
        except BaseException:
            self._resources.close()
            raise
        return self

    def close(self) -> None:
        """Flush the file to disk."""
        with contextlib.suppress(OSError):  # a pipe cannot be flushed
            os.fsync(self._file.fileno())
        self._resources.close()

    def claim(self, name: str) -> bool:
        """Whether this photo was not claimed before, in this run or an earlier one."""
        sql = "INSERT OR IGNORE INTO names VALUES (?)"
        return self._names.execute(sql, (os.fsencode(name),)).rowcount == 1

    def write(self, name: str, outcome: Analysis | Failure) -> None:
        """Append one answer."""
        # In one write: a kill leaves the whole line, or an incomplete last line.
        self._file.write(json.dumps({"image": name, **self._fields(name, outcome)}).encode() + b"\n")
        self._file.flush()

    def _read_names(self) -> None:
        """Claim the photos that have an answer, and remove an incomplete last line."""
        end = 0
        self._names.execute("BEGIN")
        for answer, size in self._answers():
            if not self.claim(answer["image"]):
                raise ConfigurationError(
                    f"{self._path} has two answers for {answer['image']}; name another file with --output"
                )
            self.failed += "error" in answer
            self.analysed += "error" not in answer
            end += size
        self._file.truncate(end)

    def _open(self, path: Path) -> BinaryIO:
        file = self._resources.enter_context(path.open("a+b"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another run is writing to {self._path}") from None
        return file

    def _without_errors(self) -> BinaryIO:
        """Replace the file by one without the photos that failed; a kill leaves one or the other, complete."""
        path = self._path.with_name(f"{self._path.name}.retry")
        path.unlink(missing_ok=True)
        copy = self._open(path)
        for answer, _ in self._answers():
            if "error" not in answer:
                copy.write(json.dumps(answer).encode() + b"\n")
        copy.flush()
        os.fsync(copy.fileno())
        path.replace(self._path)
        return copy

    def _answers(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The answers in the file, each with its line's length; an incomplete last line is left out."""
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n") and line[: len(_START)] == _START[: len(line)]:
                return
            try:
                answer = json.loads(line)
                name = answer["image"]
            except (ValueError, KeyError, TypeError):
                name = None
            if not isinstance(name, str) or not line.endswith(b"\n"):
                # It may be any file: nothing in it is changed.
                raise ConfigurationError(
                    f"{self._path}: line {number} was not written by this command; name another file with --output"
                )
            yield answer, len(line)
