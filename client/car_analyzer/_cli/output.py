"""What `car-analyzer analyze` prints: JSON for programs, a table for people, and how far it is."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .._results import Analysis, Failure


class Output(Protocol):
    """Takes results one by one."""

    def add(self, name: str, outcome: Analysis | Failure) -> None:
        """Take one photo's result."""

    def finish(self) -> None:
        """Print what has been held back."""


class JsonOutput:
    """One JSON object a line, as soon as it is there.

    Args:
        is_single: Leave the name of the photo out of a good result, as there is but one.
    """

    def __init__(self, *, is_single: bool) -> None:
        self._is_single = is_single

    def add(self, name: str, outcome: Analysis | Failure) -> None:
        """Print one line."""
        fields = outcome.to_dict()
        # As plain ASCII, because a file's name may be no text in any encoding.
        print(json.dumps(fields if self._is_single and outcome.ok else {"image": name, **fields}), flush=True)

    def finish(self) -> None:
        """Nothing is held back."""


class TableOutput:
    """An aligned table, at the end, when the widths are known."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, Analysis | Failure]] = []

    def add(self, name: str, outcome: Analysis | Failure) -> None:
        """Keep one row."""
        self._rows.append((name, outcome))

    def finish(self) -> None:
        """Print the table."""
        heads = list(dict.fromkeys(head for _, outcome in self._rows if outcome.ok for head in outcome.heads))
        rows = [["photo", *heads, "    ms"]] if heads else []
        rows += [list(map(_printable, _row(name, outcome, heads))) for name, outcome in self._rows]
        # An error fills the rest of its line, and so has no say in the widths.
        names = max((len(row[0]) for row in rows), default=0)
        widths = [max(len(row[column]) for row in rows if len(row) > 2) for column in range(1, len(heads) + 1)]
        for name, *cells in rows:
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
            print("  ".join([name.ljust(names), *padded, *cells[len(padded) :]]).rstrip())
        sys.stdout.flush()


def _row(name: str, outcome: Analysis | Failure, heads: list[str]) -> list[str]:
    if not outcome.ok:
        return [name, str(outcome.error)]
    found = [outcome.heads.get(head) for head in heads]
    texts = ["" if head is None else f"{head.label} {head.confidence:.1%}" for head in found]
    return [name, *texts, f"{outcome.processing_time_ms:6.1f}"]


def _printable(text: str) -> str:
    # A file's name may hold what no encoding has, and a terminal's encoding may lack what the name holds.
    encoding = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def progress(total: int) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """A bar on standard error, where a person looks at it and there is more than one photo.

    Yields:
        To be called for each result: moves the bar, and is a context to print in.
    """
    if total < 2 or sys.stderr is None or not sys.stderr.isatty():
        yield nullcontext
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="photo", file=sys.stderr, dynamic_ncols=True, leave=False) as bar:

        def step() -> AbstractContextManager[None]:
            bar.update()
            writing: AbstractContextManager[None] = tqdm.external_write_mode(file=sys.stdout)
            return writing

        yield step
