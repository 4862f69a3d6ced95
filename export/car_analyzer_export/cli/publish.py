"""`car-analyzer publish`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from car_analyzer.command_line import count

from ..network_process import NetworkProcess
from ..repository.signature import Signature
from .common import make_parser, progress_bar, run
from .export import add_options, check_source, has_source, print_export, read_spec
from .labelled import STEPS, check_labelled
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

    from ..checking.outcome import Checked
    from ..export import Export
    from ..repository.publishing.control import Triton
    from ..repository.publishing.switch import Switch
    from ..spec import Plan

    Exported = tuple[Plan, Export, Checked | None]

_EPILOG = f"""\
examples:
  car-analyzer publish cars.toml --admin-key-file admin.key
  car-analyzer publish --cleanliness cleanliness_model.pth --condition condition_model.pth
  car-analyzer publish --version 4              a version that was exported before

Exports the new version, loads it beside the served one, and sends it the reference photos. It is served only if its
answers match PyTorch's; otherwise nothing changes. --repository must be the folder that Triton serves.

{EXIT_CODES}"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if has_source(arguments) or arguments.version is None:
        check_source(parser, arguments)
    elif arguments.check is not None:
        parser.error("--check is for a new version; check the running server with `car-analyzer check`")
    return run(
        "publish",
        lambda: _publish(arguments),
        lambda result: _report(arguments, *result),
        interrupted=STILL_SERVED,
    )


def _publish(arguments: argparse.Namespace) -> tuple[Switch, Exported | None]:
    signature = Signature(arguments.repository, arguments.sign, new=False)
    signature.check()
    # Connects before the export, which takes long, so that a wrong key or URL fails at once.
    with connected(arguments) as triton:
        if has_source(arguments):
            return _publish_new(arguments, triton, signature)
        with progress_bar(SWITCH_STEPS) as progress, exclusive(signature):
            return switch_to(triton, signature, arguments.version, progress, keep=arguments.keep), None


def _publish_new(arguments: argparse.Namespace, triton: Triton, signature: Signature) -> tuple[Switch, Exported]:
    spec = read_spec(arguments)
    switches: list[Switch] = []
    steps = 1 + spec.steps + (STEPS if arguments.check else 0) + SWITCH_STEPS
    with (
        progress_bar(steps, "starting PyTorch") as progress,
        NetworkProcess(spec, trust_pickle=arguments.trust_pickle, progress=progress) as networks,
    ):
        from ..export import add_version  # while the other process imports PyTorch

        def deliver(_repository: Path, version: int) -> None:
            switches.append(switch_to(triton, signature, version, progress, keep=arguments.keep, exported=version))

        plan = networks.plan()
        checked = check_labelled(plan, networks, arguments)
        exported = add_version(
            plan,
            arguments.repository,
            networks.write,
            version=arguments.version,
            deliver=deliver,
            checked=checked,
            signature=signature,
        )
    return switches[0], (plan, exported, checked)


def _report(arguments: argparse.Namespace, switch: Switch, exported: Exported | None) -> None:
    facts: dict[str, Any] = {}
    if exported is not None:
        _, export, checked = exported
        facts = {"networks": export.networks} | ({} if checked is None else {"check": checked.facts})
        if not arguments.json:
            print_export(*exported)
    report(switch, as_json=arguments.json, facts=facts)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "publish",
        "Serve a new version from a running Triton without downtime, if its answers are as expected.",
        _EPILOG,
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
