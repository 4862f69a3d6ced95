"""What `car-analyzer publish` and `car-analyzer rollback` share."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from car_analyzer import TLS, CarAnalyzerError
from car_analyzer.command_line import DONE, FAILED, INTERRUPTED, UNREACHABLE, add_tls
from car_analyzer.config import DEFAULT_URL, URL_VARIABLE, Endpoint
from car_analyzer_server import ServerError
from car_analyzer_server.access import KEY_VARIABLE, read_key

from ..errors import ExportError, PublishError, UnreachableError
from ..repository.publishing.control import Triton
from ..repository.publishing.switch import Switch, check_served
from ..repository.versions import clean_up, locked, prune

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from types import FrameType

EXIT_CODES = """\
exit codes: 0 served, 1 not served (the message says why, and what was served still is), 2 wrong usage,
3 no server answers, 130 interrupted (likewise undone)
"""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says which Triton, and how to be let in."""
    parser.add_argument("--url", metavar="URL", help=f"grpc:// or grpcs://; default: ${URL_VARIABLE} or {DEFAULT_URL}")
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the key that Triton was started with; default: ${KEY_VARIABLE}",
    )
    add_tls(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as one JSON object")


@contextlib.contextmanager
def connected(arguments: argparse.Namespace) -> Iterator[Triton]:
    """A Triton that may be controlled.

    Raises:
        ExportError: It may not, or nobody answers.
        CarAnalyzerError: The URL or a TLS file is wrong.
        ServerError: The key is none.
    """
    endpoint = Endpoint.default() if arguments.url is None else Endpoint.parse(arguments.url)
    if not endpoint.is_grpc:
        raise PublishError(f"{endpoint} is HTTP, and Triton is controlled by gRPC; give --url grpc://HOST:PORT.")
    tls = TLS(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    if tls != TLS() and not endpoint.is_secure:
        raise PublishError(f"--tls-ca, --tls-cert and --tls-key are for grpcs://, not for {endpoint}.")
    with Triton(endpoint, read_key(arguments.admin_key_file), tls) as triton:
        triton.check_control()
        check_served(triton, arguments.repository)
        yield triton


def switch_to(
    triton: Triton,
    repository: Path,
    choose: int | Callable[[int], int],
    progress: Callable[[str], None],
    *,
    keep: int | None = None,
    exported: int | None = None,
    back: bool = False,
) -> Switch:
    """Makes a version the served one; the repository must be locked.

    Args:
        triton: Where.
        repository: What it serves.
        choose: The version, or what gives it for the one that is served now.
        progress: Called with a few words at the start of each step.
        keep: How many versions to keep in the repository; None for all.
        exported: The version that was exported for this just now.
        back: It is a rollback.

    Raises:
        PublishError: It is not served; what was served before still is.
    """
    before = check_served(triton, repository)
    clean_up(repository, before, but=exported)
    switch = Switch(triton, repository, before, choose if isinstance(choose, int) else choose(before), back)
    switch.run(progress)
    if keep is not None and (removed := prune(repository, keep, {before, switch.version})):
        versions = ", ".join(map(str, removed))
        switch.notes.append(f"Removed from {repository}, as --keep {keep} says: version {versions}.")
    return switch


@contextlib.contextmanager
def alone_in(repository: Path) -> Iterator[None]:
    """Keeps other exports, publications and rollbacks out of a repository."""
    if not repository.is_dir():
        raise PublishError(f"The model repository {repository} does not exist.")
    try:
        with locked(repository, wait=False):
            yield
            return
    except BlockingIOError:
        print(f"waiting for another export or publication into {repository} ...", file=sys.stderr)
    with locked(repository):
        yield


def report(switch: Switch, *, as_json: bool, facts: dict[str, Any] | None = None) -> None:
    """Prints what was done."""
    if as_json:
        known = {"photos": switch.photos, "max_difference": switch.difference}
        done = {"url": switch.triton.url, "repository": str(switch.repository), "served": switch.version}
        print(json.dumps({**done, "before": switch.before, "known": known, "notes": switch.notes, **(facts or {})}))
        return
    print(
        f"version {switch.version} answers {switch.photos} known photos as recorded "
        f"(largest difference of a logit {switch.difference:.1g})"
    )
    print(f"version {switch.version} is served at {switch.triton.url}, in place of version {switch.before}")
    for note in switch.notes:
        print(note, file=sys.stderr)


def run(name: str, work: Callable[[], object]) -> int:
    """Does a command's work; returns its exit code."""
    # A SIGTERM is undone like a Ctrl-C. SIGINT, too: a shell starts its background jobs with it ignored.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        work()
    except (ExportError, ServerError, CarAnalyzerError) as error:
        print(f"car-analyzer {name}: {error}", file=sys.stderr)
        return UNREACHABLE if isinstance(error, UnreachableError) else FAILED
    except KeyboardInterrupt:
        print(f"car-analyzer {name}: interrupted; what was served before is served on.", file=sys.stderr)
        return INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return DONE


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
