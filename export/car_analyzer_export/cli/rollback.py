"""`car-analyzer rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from car_analyzer.command_line import count

from ..repository.signature import Signature
from ..repository.versions import version_before
from .common import add_repository, add_sign, make_parser, progress_bar, run
from .publishing import (
    EXIT_CODES,
    STILL_SERVED,
    SWITCH_STEPS,
    add_server_options,
    connected,
    exclusive,
    report,
    switch_to,
)

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ..repository.publishing.switch import Switch

_EPILOG = f"""\
examples:
  car-analyzer rollback --admin-key-file admin.key
  car-analyzer rollback --to 3 --url grpc://triton:8001

Without --to, restores the version that the current one replaced; another rollback goes back further.
Nothing is removed: `car-analyzer publish --version N` or `rollback --to N` serves a version again.

{EXIT_CODES}"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = make_parser("rollback", "Serve an earlier version from a running Triton, without downtime.", _EPILOG)
    parser.add_argument("--to", type=count, metavar="N", help="the version; default: the one before")
    add_repository(parser)
    add_sign(parser)
    add_server_options(parser)
    arguments = parser.parse_args(argv)
    return run(
        "rollback",
        lambda: _roll_back(arguments),
        lambda switch: report(switch, as_json=arguments.json),
        interrupted=STILL_SERVED,
    )


def _roll_back(arguments: argparse.Namespace) -> Switch:
    repository: Path = arguments.repository
    signature = Signature(repository, arguments.sign, new=False)
    signature.check()
    choose = arguments.to or (lambda served: version_before(repository, served))
    with (
        connected(arguments) as triton,
        progress_bar(SWITCH_STEPS) as progress,
        exclusive(signature),
    ):
        return switch_to(triton, signature, choose, progress, back=True)
