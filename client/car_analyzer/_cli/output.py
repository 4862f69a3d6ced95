"""Where the answers of `car-analyzer analyze` go: JSON for programs, a table for people, and a progress bar."""

from __future__ import annotations

import json
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .._results import Analysis, Failure, Head
    from .overlays import Overlays

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Output:
    """Takes answers one by one, and counts them. A context manager.

    Args:
        with_model: The JSON of each analysis says which model answered.
        overlays: Where the pictures of `--explain` are; None without it.

    Attributes:
        analysed: How many photos have an analysis.
        failed: How many photos have an error.
    """

    def __init__(self, *, with_model: bool = False, overlays: Overlays | None = None) -> None:
        self.analysed = 0
        self.failed = 0
        self._with_model = with_model
        self._overlays = overlays

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def claim(self, name: str) -> bool:  # noqa: ARG002
        """Whether a photo still has to be analysed."""
        return True

    def add(self, name: str, outcome: Analysis | Failure) -> None:
        """Take one photo's answer."""
        self.write(name, outcome)
        self.analysed += outcome.ok
        self.failed += not outcome.ok

    def write(self, name: str, outcome: Analysis | Failure) -> None:
        """Print or store one answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Print what was held back, and release resources."""

    def _fields(self, name: str, outcome: Analysis | Failure) -> dict[str, Any]:
        if not outcome.ok:
            return outcome.to_dict()
        fields = outcome.to_dict(with_model=self._with_model)
        if self._overlays is not None:
            for head, explanation in fields["explanations"].items():
                explanation["file"] = self._overlays.path(name, head)
        return fields


class JsonOutput(Output):
    """JSON Lines on standard output, each as soon as its answer is there.

    Args:
        with_names: Begin each line with the photo's name; otherwise only errors have it.
        with_model: See `Output`.
        overlays: See `Output`.
    """

    def __init__(self, *, with_names: bool, with_model: bool, overlays: Overlays | None = None) -> None:
        super().__init__(with_model=with_model, overlays=overlays)
        self._with_names = with_names

    def write(self, name: str, outcome: Analysis | Failure) -> None:
        """Print one line."""
        fields = self._fields(name, outcome)
        # As ASCII: a file's name may not be valid text in any encoding.
        print(json.dumps({"image": name, **fields} if self._with_names or not outcome.ok else fields), flush=True)


class TableOutput(Output):
    """An aligned table on standard output, printed at the end, when the widths are known."""

    def __init__(self, overlays: Overlays | None = None) -> None:
        super().__init__(overlays=overlays)
        self._rows: list[tuple[str, Analysis | Failure]] = []

    def write(self, name: str, outcome: Analysis | Failure) -> None:
        """Keep one row."""
        self._rows.append((name, outcome))

    def close(self) -> None:
        """Print the table."""
        heads = list(dict.fromkeys(head for _, outcome in self._rows if outcome.ok for head in outcome.heads))
        rows = [["photo", *heads, "    ms"]] if heads else []
        rows += [list(map(_printable, self._row(name, outcome, heads))) for name, outcome in self._rows]
        # An error fills the rest of its line, so it has no influence on the widths.
        names = max((len(row[0]) for row in rows), default=0)
        widths = [max(len(row[column]) for row in rows if len(row) > 2) for column in range(1, len(heads) + 1)]
        for name, *cells in rows:
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
            print("  ".join([name.ljust(names), *padded, *cells[len(padded) :]]).rstrip())
        sys.stdout.flush()

    def _row(self, name: str, outcome: Analysis | Failure, heads: list[str]) -> list[str]:
        if not outcome.ok:
            return [name, str(outcome.error)]
        texts = [self._cell(name, head, outcome.heads.get(head)) for head in heads]
        return [name, *texts, f"{outcome.processing_time_ms:6.1f}"]

    def _cell(self, photo: str, name: str, head: Head | None) -> str:
        if head is None:
            return ""
        text = f"{head.label} {head.confidence:.1%}"
        if self._overlays is None or head.explanation is None:
            return text
        return f"{text} ({head.explanation.method}: {self._overlays.path(photo, name)})"


def _printable(text: str) -> str:
    # A file's name may have line breaks and escape sequences. It may not be valid text in any encoding, and the
    # terminal's encoding may lack some characters.
    text = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    encoding = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Progress:
    """A progress bar on standard error, shown on a terminal and for more than one photo. A context manager.

    Args:
        count: The number of photos, or None if it is unknown; only called on a terminal.
    """

    def __init__(self, count: Callable[[], int | None]) -> None:
        self._bar: Any = None
        if sys.stderr is None or not sys.stderr.isatty():
            return
        total = count()
        if total is None or total > 1:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="photo", file=sys.stderr, dynamic_ncols=True, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self) -> None:
        """Count a photo that was analysed in an earlier run. It does not count towards this run's speed."""
        if self._bar is not None:
            with self._bar.get_lock():  # called from the workers
                self._bar.initial += 1
                self._bar.update()

    def advance(self, failed: int) -> None:
        """Count one answer."""
        if self._bar is not None:
            with self._bar.get_lock():
                self._bar.set_postfix(failed=failed, refresh=False)
                self._bar.update()

    def paused(self) -> AbstractContextManager[None]:
        """A context in which the bar is hidden, to print something."""
        if self._bar is None:
            return nullcontext()
        paused: AbstractContextManager[None] = self._bar.external_write_mode(file=sys.stdout)
        return paused
