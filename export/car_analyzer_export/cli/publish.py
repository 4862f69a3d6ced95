"""`car-analyzer publish`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from car_analyzer.command_line import count

from ..network_process import NetworkProcess
from .export import add_options, check_choice, progress_bar, read_spec, says_what
from .export import report as report_export
from .labelled import STEPS, check_labelled
from .publishing import EXIT_CODES, add_server_options, alone_in, connected, report, run, switch_to

if TYPE_CHECKING:
    from pathlib import Path

    from ..repository.publishing.control import Triton
    from ..repository.publishing.switch import Switch

# What a change of versions reports.
_SWITCH_STEPS = 4

_EPILOG = f"""\
examples:
  car-analyzer publish cars.toml --admin-key-file admin.key
  car-analyzer publish --cleanliness cleanliness_model.pth --condition condition_model.pth
  car-analyzer publish --version 4              a version that was exported before

The new version is exported, loaded beside the served one, and sent photos with known answers. Only if it answers as it
did in PyTorch, it is served; otherwise everything stays as it was. --repository must be the folder that Triton serves.

{EXIT_CODES}"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if says_what(arguments) or arguments.version is None:
        check_choice(parser, arguments)
    elif arguments.check is not None:
        parser.error("--check is for a new version; ask the running server with `car-analyzer check`")
    return run("publish", lambda: _publish(arguments))


def _publish(arguments: argparse.Namespace) -> None:
    # Before the export, which takes its time: a wrong key or URL is known at once.
    with connected(arguments) as triton:
        if says_what(arguments):
            _publish_new(arguments, triton)
        else:
            _publish_exported(arguments, triton)


def _publish_exported(arguments: argparse.Namespace, triton: Triton) -> None:
    with progress_bar(_SWITCH_STEPS) as progress, alone_in(arguments.repository):
        switch = switch_to(triton, arguments.repository, arguments.version, progress, keep=arguments.keep)
    report(switch, as_json=arguments.json)


def _publish_new(arguments: argparse.Namespace, triton: Triton) -> None:
    spec = read_spec(arguments)
    switches: list[Switch] = []
    steps = 1 + spec.steps + (STEPS if arguments.check else 0) + _SWITCH_STEPS
    with (
        progress_bar(steps, "starting PyTorch") as progress,
        NetworkProcess(spec, trust_pickle=arguments.trust_pickle, progress=progress) as networks,
    ):
        from ..export import add_version  # while the other process imports PyTorch

        def deliver(repository: Path, version: int) -> None:
            switches.append(switch_to(triton, repository, version, progress, keep=arguments.keep, exported=version))

        plan = networks.plan()
        checked = check_labelled(plan, networks, arguments)
        done = add_version(
            plan,
            arguments.repository,
            networks.write,
            version=arguments.version,
            deliver=deliver,
            checked=checked,
        )
    facts: dict[str, Any] = {"networks": done.networks}
    if checked is not None:
        facts["check"] = checked.facts
    if not arguments.json:
        report_export(plan, done, checked)
    report(switches[0], as_json=arguments.json, facts=facts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="car-analyzer publish",
        description="Put a new version into a running Triton, without downtime, if it answers as it should.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument(
        "--keep",
        type=count,
        metavar="K",
        help="afterwards, remove all but the newest K versions, the served one and the one before; default: keep all",
    )
    add_server_options(parser)
    return parser
