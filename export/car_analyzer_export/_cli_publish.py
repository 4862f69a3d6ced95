"""`car-analyzer publish`."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ._cli import add_options, check_choice, read_spec, says_what
from ._cli import report as report_export
from ._cli_labelled import STEPS, check_labelled
from .publishing.command import EXIT_CODES, add_server_options, alone_in, connected, report, run, switch_to

if TYPE_CHECKING:
    from pathlib import Path

    from .publishing.control import Triton
    from .publishing.switch import Switch

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
    with _bar(_SWITCH_STEPS) as bar, alone_in(arguments.repository):
        switch = switch_to(triton, arguments.repository, arguments.version, partial(_step, bar), keep=arguments.keep)
    report(switch, as_json=arguments.json)


def _publish_new(arguments: argparse.Namespace, triton: Triton) -> None:
    spec = read_spec(arguments)
    switches: list[Switch] = []
    # The bar is on screen before PyTorch is imported, which takes seconds.
    with _bar(1 + spec.steps + (STEPS if arguments.check else 0) + _SWITCH_STEPS) as bar:
        bar.set_description_str("starting PyTorch")
        from .export import export
        from .planning import plan_export

        progress = partial(_step, bar)

        def deliver(repository: Path, version: int) -> None:
            switches.append(switch_to(triton, repository, version, progress, keep=arguments.keep, exported=version))

        plan = plan_export(spec, trust_pickle=arguments.trust_pickle, progress=progress)
        checked = check_labelled(plan, arguments, progress)
        done = export(
            plan,
            arguments.repository,
            version=arguments.version,
            progress=progress,
            deliver=deliver,
            checked=checked,
        )
    facts: dict[str, Any] = {"networks": done.networks}
    if checked is not None:
        facts["check"] = checked.to_dict()
    if not arguments.json:
        report_export(plan, done, checked)
    report(switches[0], as_json=arguments.json, facts=facts)


def _bar(steps: int) -> tqdm:
    # `disable=None` shows it on a terminal only.
    return tqdm(total=steps, disable=None, bar_format="{l_bar}{bar}| {n}/{total} {desc}", leave=False)


def _step(bar: tqdm, text: str) -> None:
    bar.update()
    bar.set_description_str(text)


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
        type=_count,
        metavar="K",
        help="afterwards, remove all but the newest K versions, the served one and the one before; default: keep all",
    )
    add_server_options(parser)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)
