"""`car-analyzer rollback`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from car_analyzer.command_line import count

from ..repository.versions import version_before
from .publishing import EXIT_CODES, add_server_options, alone_in, connected, report, run, switch_to

_EPILOG = f"""\
examples:
  car-analyzer rollback --admin-key-file admin.key
  car-analyzer rollback --to 3 --url grpc://triton:8001

Without --to, the version comes back in whose place the served one came; another rollback goes back further.
Nothing is removed: `car-analyzer publish --version N` or `rollback --to N` serves a version again.

{EXIT_CODES}"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run("rollback", lambda: _roll_back(arguments))


def _roll_back(arguments: argparse.Namespace) -> None:
    repository: Path = arguments.repository
    with (
        connected(arguments) as triton,
        tqdm(disable=None, bar_format="{desc}", leave=False) as bar,
        alone_in(repository),
    ):
        switch = switch_to(
            triton,
            repository,
            arguments.to or (lambda served: version_before(repository, served)),
            bar.set_description_str,
            back=True,
        )
    report(switch, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:

    parser = argparse.ArgumentParser(
        prog="car-analyzer rollback",
        description="Bring an earlier version back into a running Triton, without downtime.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--to", type=count, metavar="N", help="the version; default: the one before")
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="default: %(default)s"
    )
    add_server_options(parser)
    return parser
