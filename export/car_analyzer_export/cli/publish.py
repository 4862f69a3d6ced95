"""`car-analyzer publish`."""

from __future__ import annotations

from functools import partial
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
    served_export,
    switch_to,
)
from .shadow import Shadow, add_shadow_options, check_shadow_options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from ..checking.outcome import Checked
    from ..export import Export
    from ..repository.publishing.switch import Switch
    from ..spec import Plan

    Exported = tuple[Plan, Export, Checked | None]

_EPILOG = f"""\
examples:
  car-analyzer publish cars.toml --admin-key-file admin.key
  car-analyzer publish --cleanliness cleanliness_model.pth --condition condition_model.pth
  car-analyzer publish --version 4              a version that was exported before
  car-analyzer publish cars.toml --shadow 10% --gateway http://localhost:5000 --report shadow.html

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
    check_shadow_options(parser, arguments)
    return run(
        "publish",
        lambda: _publish(arguments),
        lambda result: _report(arguments, *result),
        interrupted=STILL_SERVED,
    )


def _publish(arguments: argparse.Namespace) -> tuple[Switch, Exported | None, Shadow | None]:
    signature = Signature(arguments.repository, arguments.sign, new=False)
    signature.check()
    shadow = None if arguments.shadow is None else Shadow(arguments)
    # Connects before the export, which takes long, so that a wrong key or URL fails at once.
    with connected(arguments) as triton:
        if shadow is not None:
            shadow.trial.check(served_export(triton))
        compare, steps = (None, SWITCH_STEPS) if shadow is None else (shadow.run, SWITCH_STEPS + 1)
        serve = partial(switch_to, triton, signature, keep=arguments.keep, shadow=compare)
        if has_source(arguments):
            return *_publish_new(arguments, serve, signature, steps), shadow
        with progress_bar(steps) as progress, exclusive(signature):
            return serve(arguments.version, progress), None, shadow


def _publish_new(
    arguments: argparse.Namespace, serve: Callable[..., Switch], signature: Signature, switch_steps: int
) -> tuple[Switch, Exported]:
    spec = read_spec(arguments)
    switches: list[Switch] = []
    steps = 1 + spec.steps + (STEPS if arguments.check else 0) + switch_steps
    with (
        progress_bar(steps, "starting PyTorch") as progress,
        NetworkProcess(spec, trust_pickle=arguments.trust_pickle, progress=progress) as networks,
    ):
        from ..export import add_version  # while the other process imports PyTorch

        def deliver(_repository: Path, version: int) -> None:
            switches.append(serve(version, progress, exported=version))

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


def _report(arguments: argparse.Namespace, switch: Switch, exported: Exported | None, shadow: Shadow | None) -> None:
    facts: dict[str, Any] = {}
    if exported is not None:
        _, export, checked = exported
        facts = {"networks": export.networks} | ({} if checked is None else {"check": checked.facts})
        if not arguments.json:
            print_export(*exported)
    if shadow is not None:
        facts |= shadow.facts
        if not arguments.json:
            print(shadow.text)
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
    add_shadow_options(parser)
    return parser
