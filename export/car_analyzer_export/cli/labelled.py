"""`--check` of `car-analyzer export` and `car-analyzer publish`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from car_analyzer.command_line import share

from ..checking.text import encodable
from ..errors import AccuracyError

if TYPE_CHECKING:
    import argparse

    from ..checking.outcome import Checked
    from ..network_process import NetworkProcess
    from ..spec import Plan

# What it adds to the steps that a command reports.
STEPS = 2


def add_check_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says which photos the networks have to know, and how well."""
    parser.add_argument(
        "--check",
        type=Path,
        metavar="LABELLED",
        help="labelled photos, a folder or a CSV file as of `car-analyzer check`; publish nothing if the networks do "
        "not know them",
    )
    parser.add_argument(
        "--min-accuracy",
        type=share,
        metavar="X",
        help="with --check: what every head must reach, from 0 to 1; default: better than chance",
    )


def check_labelled(plan: Plan, networks: NetworkProcess, arguments: argparse.Namespace) -> Checked | None:
    """Checks the networks on the photos of `--check`; None without it.

    Raises:
        AccuracyError: They do not know them well enough. What was found out is printed already.
        SpecError: There is nothing to be checked.
    """
    if arguments.check is None:
        return None
    checked = networks.check_labelled(arguments.check, arguments.min_accuracy)
    if not checked.refused:
        return checked
    for network in plan.networks:
        for note in network.notes:
            tqdm.write(note, file=sys.stderr)
    tqdm.write(json.dumps({"check": checked.facts}) if arguments.json else lines(checked), file=sys.stdout)
    raise AccuracyError("\n".join([*checked.refused, "Nothing was published."]))


def lines(checked: Checked) -> str:
    """What was found out, as text for this terminal."""
    return encodable(checked.text).rstrip("\n")
