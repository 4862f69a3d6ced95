"""`car-analyzer analyze` and `car-analyzer health`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from .._client import DEFAULT_RETRY
from .._results import Analysis, Failure
from .._sync import CarAnalyzer
from ..command_line import DONE, FAILED, UNREACHABLE
from ..config import TLS, Retry
from ..errors import PhotoError, UnreachableError
from ..folders import STANDARD_INPUT, Entry, find_photos
from .output import JsonOutput, Output, TableOutput, progress
from .sources import is_url

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from .._photo import Photo

# A person waits at the other end: a server that went away gets as little patience as one that was never there.
RETRY = Retry(reconnect_patience=2.0)


def analyze(arguments: argparse.Namespace) -> int:
    """Analyse photos and print what came out.

    Returns:
        The exit code: 0 all analysed, 1 not all of them, 3 nobody answers at the URL.
    """
    if arguments.lists or arguments.output is not None or any(map(is_url, arguments.photos)):
        from . import bulk

        with _connect(arguments, timeout=arguments.timeout, retry=DEFAULT_RETRY) as analyzer:
            return bulk.analyze(arguments, analyzer)
    with _connect(arguments, timeout=arguments.timeout) as analyzer:
        entries = find_photos(arguments.photos, recursive=arguments.recursive)
        is_single = len(arguments.photos) == 1 and entries == [Entry(arguments.photos[0])]
        output: Output = TableOutput() if arguments.table else JsonOutput(is_single=is_single)
        try:
            return _print_all(analyzer, entries, arguments.concurrency, output)
        except UnreachableError as error:
            print(f"car-analyzer analyze: {error}\nStart a server with: car-analyzer serve", file=sys.stderr)
            return UNREACHABLE
        finally:
            output.finish()


def health(arguments: argparse.Namespace) -> int:
    """Print whether the service can take photos.

    Returns:
        The exit code: 0 it can, 3 it cannot.
    """
    with _connect(arguments) as analyzer:
        report = analyzer.health(arguments.timeout)
    print(json.dumps(report.to_dict()), flush=True)
    return DONE if report.ready else UNREACHABLE


def _connect(arguments: argparse.Namespace, timeout: float = 30.0, retry: Retry = RETRY) -> CarAnalyzer:
    # tritonclient imports numpy, which would start a thread for each core, and compute nothing with them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    tls = TLS.of(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    return CarAnalyzer(arguments.url, timeout=timeout, model=arguments.model, retry=retry, tls=tls)


def _print_all(analyzer: CarAnalyzer, entries: list[Entry], concurrency: int, output: Output) -> int:
    code = DONE
    with progress(len(entries)) as step:
        for entry, outcome in _outcomes(analyzer, entries, concurrency):
            if not outcome.ok:
                if isinstance(outcome.error, UnreachableError):
                    raise outcome.error
                code = FAILED
            with step():
                output.add(entry.name, outcome)
    return code


def _outcomes(
    analyzer: CarAnalyzer, entries: list[Entry], concurrency: int
) -> Iterator[tuple[Entry, Analysis | Failure]]:
    sent = analyzer.analyze_many(map(_photo, (e for e in entries if e.error is None)), concurrency=concurrency)
    try:
        for entry in entries:
            yield entry, next(sent) if entry.error is None else Failure(PhotoError(entry.error))
    finally:
        sent.close()


def _photo(entry: Entry) -> Photo:
    if entry.name != STANDARD_INPUT:
        return entry.name
    # Read here and not by the client's thread, where a Ctrl-C would not get through to it.
    return b"" if sys.stdin is None else sys.stdin.buffer.read()
