"""`car-analyzer analyze` and `car-analyzer health`."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._client import DEFAULT_RETRY
from .._results import Analysis, Failure
from .._sync import CarAnalyzer
from .._urls import is_url
from ..command_line import DONE, FAILED, UNREACHABLE, USAGE
from ..config import TLS, Retry
from ..errors import CarAnalyzerError, ConfigurationError, ModelNotReadyError, PhotoError, UnreachableError
from ..folders import STANDARD_INPUT, Entry, find_photos
from . import sources
from .output import JsonOutput, Output, Progress, TableOutput
from .overlays import Overlays
from .pipeline import map_concurrently

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

# A person waits: a server that went away is given up as soon as one that was never there.
INTERACTIVE_RETRY = Retry(reconnect_patience=2.0)


@dataclass(frozen=True)
class Job:
    """What differs between a few photos and a bulk run.

    Attributes:
        entries: The photos.
        count: How many there are, if that is known; called only where it is shown.
        read: Reads a photo.
        output: Where the answers go.
        ordered: Answers come in the order of the photos, not as they are complete.
        retry: How failed attempts are repeated.
        fatal: Errors that stop the run. Any other error is the answer for its photo.
        overlays: Where the pictures of `--explain` go; None without it.
    """

    entries: Iterable[Entry]
    count: Callable[[], int | None]
    read: Callable[[str], bytes]
    output: Output
    ordered: bool
    retry: Retry
    fatal: tuple[type[CarAnalyzerError], ...]
    overlays: Overlays | None = None


def analyze(arguments: argparse.Namespace) -> int:
    """Analyse photos; print the answers, or write them to a file.

    Returns:
        The exit code: 0 every photo was analysed, 1 some were not, 2 wrong usage, 3 no server answers (in a bulk run
        also: the model is not loaded).

    Raises:
        ConfigurationError: The URL, a list or the output file cannot be used.
        OSError: A folder cannot be read, or the answers cannot be written.
    """
    is_bulk = arguments.output is not None or bool(arguments.lists) or any(map(is_url, arguments.photos))
    if (wrong_usage := _wrong_usage(arguments, is_bulk=is_bulk)) is not None:
        print(f"car-analyzer analyze: {wrong_usage}", file=sys.stderr)
        return USAGE
    job = _bulk_job(arguments) if is_bulk else _interactive_job(arguments)
    problem: CarAnalyzerError | None = None
    with _connect(arguments, arguments.timeout, job.retry) as analyzer, job.output as output:
        before = output.analysed + output.failed
        try:
            _run(job, analyzer, arguments.concurrency)
        except (UnreachableError, ModelNotReadyError) as error:
            problem = error
    total = output.analysed + output.failed
    if problem is not None:
        print(f"car-analyzer analyze: {problem}", file=sys.stderr)
        if isinstance(problem, UnreachableError):
            print("Start a server with: car-analyzer serve", file=sys.stderr)
    elif total == 0:
        print("car-analyzer analyze: no photo was found", file=sys.stderr)
        return FAILED
    if arguments.output is not None:
        summary = f"{total:,} photos, {total - before:,} of them from this run; {output.failed:,} failed"
        print(f"{arguments.output}: {summary}", file=sys.stderr)
        if problem is not None:
            print("To continue the run, give the same command again.", file=sys.stderr)
    return UNREACHABLE if problem is not None else FAILED if output.failed else DONE


def health(arguments: argparse.Namespace) -> int:
    """Print whether the service can take photos; with `--wait`, as soon as it can.

    Returns:
        The exit code: 0 it can, 3 it cannot.
    """
    with _connect(arguments) as analyzer:
        if arguments.wait is not None:
            with contextlib.suppress(CarAnalyzerError):  # the report says what is missing
                analyzer.wait_until_ready(arguments.wait)
        report = analyzer.health(arguments.timeout)
    print(json.dumps(report.to_dict()), flush=True)
    if arguments.wait is not None and not report.ready:
        print(f"car-analyzer health: not ready within {arguments.wait:g} s: {report.message}", file=sys.stderr)
    return DONE if report.ready else UNREACHABLE


def _wrong_usage(arguments: argparse.Namespace, *, is_bulk: bool) -> str | None:
    """What is wrong with the combination of flags, in a sentence."""
    if not arguments.photos and not arguments.lists:
        return "name a photo, a folder, or a list with --from"
    if is_bulk and arguments.table:
        return "--table prints only at the end; it cannot be combined with --from, --output or URLs"
    if arguments.table and arguments.with_model:
        return "--with-model adds keys to the JSON; it cannot be combined with --table"
    if is_bulk and STANDARD_INPUT in arguments.photos:
        return "a photo on standard input has no name; it cannot be combined with --from, --output or URLs"
    if is_bulk and arguments.explain is not None:
        return "--explain names its pictures after all photos; it cannot be combined with --from, --output or URLs"
    if arguments.retry_errors and arguments.output is None:
        return "--retry-errors needs the --output of the previous run"
    return None


def _interactive_job(arguments: argparse.Namespace) -> Job:
    entries = find_photos(arguments.photos, recursive=arguments.recursive)
    is_single = len(arguments.photos) == 1 and entries == [Entry(arguments.photos[0])]
    photos = [entry.name for entry in entries if entry.error is None]
    overlays = None if arguments.explain is None else Overlays(arguments.explain, photos)
    output: Output = JsonOutput(with_names=not is_single, with_model=arguments.with_model, overlays=overlays)
    if arguments.table:
        output = TableOutput(overlays)
    # A model that cannot explain one photo cannot explain the others.
    fatal = (UnreachableError,) if overlays is None else (UnreachableError, ConfigurationError)
    return Job(entries, lambda: len(entries), sources.read_argument, output, True, INTERACTIVE_RETRY, fatal, overlays)


def _bulk_job(arguments: argparse.Namespace) -> Job:
    photos, lists = arguments.photos, arguments.lists
    for file in lists:
        with sources.open_list(file):  # a list that cannot be read must not leave an empty output file behind
            pass
    entries = map(Entry, sources.walk(photos, lists, recursive=arguments.recursive))
    output: Output = JsonOutput(with_names=True, with_model=arguments.with_model)
    if arguments.output is not None:
        from .answer_file import AnswerFile

        output = AnswerFile(arguments.output, retry_errors=arguments.retry_errors, with_model=arguments.with_model)
    fatal = (UnreachableError, ModelNotReadyError, ConfigurationError)
    return Job(entries, lambda: sources.count(photos, lists), sources.read, output, False, DEFAULT_RETRY, fatal)


def _connect(arguments: argparse.Namespace, timeout: float = 30.0, retry: Retry = INTERACTIVE_RETRY) -> CarAnalyzer:
    tls = TLS.of(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    return CarAnalyzer(arguments.url, timeout=timeout, model=arguments.model, retry=retry, tls=tls)


def _run(job: Job, analyzer: CarAnalyzer, concurrency: int) -> None:
    def analyze_entry(entry: Entry) -> Analysis | Failure:
        try:
            if entry.error is not None:
                raise PhotoError(entry.error, code="photo.unreadable")
            photo = job.read(entry.name)
            analysis = analyzer.analyze(photo, explain=job.overlays is not None)
            if job.overlays is not None:
                job.overlays.write(entry.name, photo, analysis)
        except CarAnalyzerError as error:
            # Tracebacks would keep the photo in memory.
            error.__cause__ = error.__context__ = None
            return Failure(error.with_traceback(None))
        return analysis

    with Progress(job.count) as progress:

        def unanswered() -> Iterator[Entry]:
            for entry in job.entries:
                if job.output.claim(entry.name):
                    yield entry
                else:
                    progress.skip()

        for entry, outcome in map_concurrently(analyze_entry, unanswered(), concurrency, ordered=job.ordered):
            if isinstance(outcome, Failure) and isinstance(outcome.error, job.fatal):
                raise outcome.error
            with progress.paused():
                job.output.add(entry.name, outcome)
            progress.advance(job.output.failed)
