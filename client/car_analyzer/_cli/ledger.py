"""The answers of a long run in a file: one JSON object a line, each photo once, however often the run was killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import BinaryIO

    from .._results import Analysis, Failure

_START = b'{"image": '


class Ledger:
    """A context manager. The file is the only memory of what is done.

    Args:
        file: Made if it is not there; what is in it stays.
        retry_errors: Forget the photos that failed, so that they are tried again.

    Attributes:
        analysed: How many photos have an answer.
        failed: How many have an error.

    Raises:
        ConfigurationError: Another run writes to the file, or a line in it is none of this command's.
        OSError: The file cannot be written.
    """

    def __init__(self, file: str, *, retry_errors: bool = False) -> None:
        self.analysed = 0
        self.failed = 0
        self._path = Path(file)
        # On disk as soon as it is large: millions of names would fill the memory.
        self._names = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._names.execute("PRAGMA journal_mode = OFF")
        self._names.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
        self._held = contextlib.ExitStack()
        self._held.callback(self._names.close)
        try:
            self._output = self._open(self._path)
            if retry_errors:
                self._output = self._without_errors()
            self._remember()
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a pipe cannot
            os.fsync(self._output.fileno())
        self._held.close()

    def claim(self, name: str) -> bool:
        """Whether nobody has asked for this photo yet, in this run or one before."""
        sql = "INSERT OR IGNORE INTO names VALUES (?)"
        return self._names.execute(sql, (os.fsencode(name),)).rowcount == 1

    def add(self, name: str, outcome: Analysis | Failure) -> None:
        """Write one answer down."""
        answer = {"image": name, **outcome.to_dict()}
        # In one piece: whoever is killed leaves all of it, or a torn last line.
        self._output.write(json.dumps(answer).encode() + b"\n")
        self._output.flush()
        self._count(answer)

    def _count(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            self.failed += 1
        else:
            self.analysed += 1

    def _remember(self) -> None:
        """Learn what is done, and cut off a last line that was not written to its end."""
        end = 0
        self._names.execute("BEGIN")
        for answer, size in self._answers():
            if not self.claim(answer["image"]):
                raise ConfigurationError(
                    f"{self._path} has two answers for {answer['image']}; name another file with --output"
                )
            self._count(answer)
            end += size
        self._output.truncate(end)

    def _open(self, path: Path) -> BinaryIO:
        file = self._held.enter_context(path.open("a+b"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another run writes to {self._path} at this moment") from None
        return file

    def _without_errors(self) -> BinaryIO:
        """Replaces the file by one without the photos that failed; a kill leaves the one or the other."""
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
        """What is in the file, with each line's length, but for a last line that was not written to its end."""
        self._output.seek(0)
        for number, line in enumerate(self._output, 1):
            if not line.endswith(b"\n") and line[: len(_START)] == _START[: len(line)]:
                return
            try:
                answer = json.loads(line)
                name = answer["image"]
            except (ValueError, KeyError, TypeError):
                name = None
            if not isinstance(name, str) or not line.endswith(b"\n"):
                # Nothing is changed in what may be anything.
                raise ConfigurationError(
                    f"{self._path}: line {number} is no answer of this command; name another file with --output"
                )
            yield answer, len(line)
