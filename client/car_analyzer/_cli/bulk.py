"""`car-analyzer analyze` for millions of photos: from lists, folders and object storage to a file, with resume."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from .._results import Failure
from ..command_line import DONE, FAILED, UNREACHABLE
from ..errors import CarAnalyzerError, ConfigurationError, ModelNotReadyError, UnreachableError
from . import sources
from .ledger import Ledger

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from .._results import Analysis
    from .._sync import CarAnalyzer

# No photo's fault: the run stops, and no photo gets an error for it.
ABSENT = (UnreachableError, ModelNotReadyError)


class Sink(Protocol):
    """Takes answers."""

    analysed: int
    failed: int

    def claim(self, name: str) -> bool:
        """Whether this photo is still to be analysed."""

    def add(self, name: str, outcome: Analysis | Failure) -> None:
        """Take one answer."""


class StandardOutput:
    """Answers on standard output, which remembers nothing."""

    def __init__(self) -> None:
        self.analysed = 0
        self.failed = 0

    def claim(self, _name: str) -> bool:
        """Every photo is analysed as often as it is named."""
        return True

    def add(self, name: str, outcome: Analysis | Failure) -> None:
        """Print one line."""
        print(json.dumps({"image": name, **outcome.to_dict()}), flush=True)
        self.analysed += outcome.ok
        self.failed += not outcome.ok


class Run:
    """Workers that take photos in turn and write answers as they come.

    Args:
        analyzer: Answers.
        names: The photos; walked as they are needed.
        sink: Where answers go.
        bar: Moves with each.
    """

    def __init__(self, analyzer: CarAnalyzer, names: Iterator[str], sink: Sink, bar: Any) -> None:
        self._analyzer = analyzer
        self._names = names
        self._sink = sink
        self._bar = bar
        self._taking, self._writing = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def run(self, workers: int) -> None:
        """Analyse all of them.

        Raises:
            UnreachableError: Nobody answers at the URL.
            ModelNotReadyError: The model is not there.
            ConfigurationError: A library is missing, or the model does not take photos.
            OSError: A list cannot be read, or the output cannot be written.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            with self._writing:  # nothing is written after this
                self._ended.set()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (name := self._take()) is not None:
                outcome = self._analyze(name)
                with self._writing:
                    if self._ended.is_set():
                        return
                    with self._bar.external_write_mode(file=sys.stdout):
                        self._sink.add(name, outcome)
                    self._bar.set_postfix(failed=self._sink.failed, refresh=False)
                    self._bar.update()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where somebody hears it
            with self._writing:
                if not self._ended.is_set():
                    self._ended.set()
                    self._error = error

    def _take(self) -> str | None:
        with self._taking:
            while not self._ended.is_set():
                name = next(self._names, None)
                if name is None:
                    return None
                with self._writing:
                    if self._sink.claim(name):
                        return name
                    if not self._bar.disable:
                        self._bar.initial += 1  # done before: no part of this run's speed
                        self._bar.update()
        return None

    def _analyze(self, name: str) -> Analysis | Failure:
        try:
            return self._analyzer.analyze(sources.read(name))
        except (*ABSENT, ConfigurationError):
            raise
        except CarAnalyzerError as error:
            return Failure(error.with_traceback(None))


def analyze(arguments: argparse.Namespace, analyzer: CarAnalyzer) -> int:
    """Analyse photos into a file, or to standard output.

    Returns:
        The exit code: 0 all analysed, 1 not all of them, 3 nobody answers at the URL, or the model is not there.

    Raises:
        CarAnalyzerError: See `Run.run` and `Ledger`.
        OSError: See there.
    """
    for file in arguments.lists:
        with sources.open_list(file):  # before anything is made
            pass
    names = sources.walk(arguments.photos, arguments.lists, recursive=arguments.recursive)
    with contextlib.ExitStack() as stack:
        sink: Sink = StandardOutput()
        if arguments.output is not None:
            sink = stack.enter_context(Ledger(arguments.output, retry_errors=arguments.retry_errors))
        before = sink.analysed + sink.failed
        bar = stack.enter_context(_bar(arguments))
        code, problem = DONE, None
        try:
            Run(analyzer, names, sink, bar).run(arguments.concurrency)
        except ABSENT as error:
            code, problem = UNREACHABLE, error
    if problem is not None:
        print(f"car-analyzer analyze: {problem}", file=sys.stderr)
    if sink.analysed + sink.failed == 0 and problem is None:
        print("car-analyzer analyze: no photo was found", file=sys.stderr)
        return FAILED
    if arguments.output is not None:
        done = sink.analysed + sink.failed
        print(
            f"{arguments.output}: {done:,} photos, {done - before:,} of them from this run; {sink.failed:,} failed",
            file=sys.stderr,
        )
        if code == UNREACHABLE:
            print("The same command goes on where this one stopped.", file=sys.stderr)
    return code or (FAILED if sink.failed else DONE)


def _bar(arguments: argparse.Namespace) -> Any:
    from tqdm import tqdm

    shown = sys.stderr is not None and sys.stderr.isatty()
    total = sources.count(arguments.photos, arguments.lists) if shown else None
    return tqdm(total=total, unit="photo", file=sys.stderr, dynamic_ncols=True, leave=False, disable=not shown)
