"""What `car-analyzer publish` and `car-analyzer rollback` share."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from car_analyzer import TLS
from car_analyzer.command_line import add_tls
from car_analyzer.config import DEFAULT_URL, URL_VARIABLE, Endpoint
from car_analyzer_server.access import KEY_VARIABLE, read_key

from ..errors import PublishError
from ..repository.publishing.control import Triton
from ..repository.publishing.switch import Switch, check_served
from ..repository.versions import clean_up, export_id, locked, prune
from ..spec import ENSEMBLE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from ..repository.signature import Signature

EXIT_CODES = """\
exit codes: 0 served, 1 not served (the message says why; the previous version is still served), 2 wrong usage,
3 no server answers, 130 interrupted (the previous version is still served)
"""
# Steps of a switch to another version, for `progress_bar`.
SWITCH_STEPS = 4

STILL_SERVED = "the previous version is still served"


_URL_HELP = f"grpc:// or grpcs://; default: ${URL_VARIABLE} or {DEFAULT_URL}"


def add_server_options(parser: argparse.ArgumentParser, url_help: str = _URL_HELP) -> None:
    """Adds the options for the running Triton and for access to it."""
    parser.add_argument("--url", metavar="URL", help=url_help)
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the key that Triton was started with; default: ${KEY_VARIABLE}",
    )
    add_tls(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


@contextlib.contextmanager
def connected(arguments: argparse.Namespace) -> Iterator[Triton]:
    """Connects to a Triton whose models can be loaded and replaced.

    Raises:
        ExportError: Triton does not allow that, or does not answer.
        CarAnalyzerError: The URL or a TLS file is invalid.
        ServingError: The key is invalid.
    """
    endpoint = Endpoint.default() if arguments.url is None else Endpoint.parse(arguments.url)
    if not endpoint.is_grpc:
        raise PublishError(f"{endpoint} is HTTP, but publishing needs gRPC; give --url grpc://HOST:PORT.")
    tls = TLS(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    if tls != TLS() and not endpoint.is_secure:
        raise PublishError(f"--tls-ca, --tls-cert and --tls-key are for grpcs://, not for {endpoint}.")
    with Triton(endpoint, read_key(arguments.admin_key_file), tls) as triton:
        triton.check_control()
        check_served(triton, arguments.repository)
        yield triton


def served_export(triton: Triton) -> str | None:
    """The id of the export that a Triton serves; None for an older export."""
    version = triton.served()
    return None if version is None else export_id(triton.config(ENSEMBLE, version)) or None


def switch_to(
    triton: Triton,
    signature: Signature,
    choose: int | Callable[[int], int],
    progress: Callable[[str], None],
    *,
    keep: int | None = None,
    exported: int | None = None,
    back: bool = False,
    shadow: Callable[[str, str], None] | None = None,
) -> Switch:
    """Switches Triton to another version; the repository must be locked.

    Args:
        triton: The running Triton.
        signature: The signature of the model repository that it serves.
        choose: The version, or a function that returns it for the version that is served now.
        progress: Called with a few words at the start of each step.
        keep: How many versions to keep in the repository; None for all.
        exported: The version that was exported for this switch.
        back: Whether this is a rollback.
        shadow: See `Switch`.

    Raises:
        PublishError: The switch failed; the previous version is still served.
    """
    repository = signature.repository
    before = check_served(triton, repository)
    clean_up(repository, before, but=exported)
    version = choose if isinstance(choose, int) else choose(before)
    switch = Switch(triton, repository, before, version, back, sign=signature.renew, shadow=shadow)
    switch.run(progress)
    if keep is not None and (removed := prune(repository, keep, {before, switch.version})):
        versions = ", ".join(map(str, removed))
        switch.notes.append(f"Removed from {repository} because of --keep {keep}: version {versions}.")
    return switch


@contextlib.contextmanager
def exclusive(signature: Signature) -> Iterator[None]:
    """Locks a repository against other exports, publications and rollbacks; waits for a running one.

    Checks its signature, and renews it after the body.
    """
    repository = signature.repository
    if not repository.is_dir():
        raise PublishError(f"The model repository {repository} does not exist.")
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(locked(repository, wait=False))
        except BlockingIOError:
            print(f"waiting for another export or publication into {repository} ...", file=sys.stderr)
            lock.enter_context(locked(repository))
        lock.enter_context(signature.renewed())
        yield


def report(switch: Switch, *, as_json: bool, facts: dict[str, Any] | None = None) -> None:
    """Prints the result of a switch."""
    if as_json:
        compared = {"photos": switch.photos, "max_difference": switch.difference}
        result = {"url": switch.triton.url, "repository": str(switch.repository), "served": switch.version}
        result |= {"before": switch.before, "known": compared, "notes": switch.notes, **(facts or {})}
        print(json.dumps(result))
        return
    print(
        f"version {switch.version} answers {switch.photos} reference photos as recorded "
        f"(largest difference of a logit {switch.difference:.1g})"
    )
    print(f"version {switch.version} is served at {switch.triton.url}, in place of version {switch.before}")
    for note in switch.notes:
        print(note, file=sys.stderr)
