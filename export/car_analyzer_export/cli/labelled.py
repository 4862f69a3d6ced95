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

# Steps that the check adds to the progress bar of a command.
STEPS = 2


def add_check_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for labelled photos and for the accuracy that is required on them."""
    parser.add_argument(
        "--check",
        type=Path,
        metavar="LABELLED",
        help="labelled photos, a folder or a CSV file as for `car-analyzer check`; publish nothing if a head's "
        "accuracy on them is too low",
    )
    parser.add_argument(
        "--min-accuracy",
        type=share,
        metavar="X",
        help="with --check: the accuracy that every head must reach, from 0 to 1; default: better than chance",
    )


def check_labelled(plan: Plan, networks: NetworkProcess, arguments: argparse.Namespace) -> Checked | None:
    """Checks the networks on the photos of `--check`; returns None without that option.

    Raises:
        AccuracyError: A head's accuracy is too low. The details are printed already.
        SpecError: There is nothing to check.
    """
    if arguments.check is None:
        return None
    checked = networks.check_labelled(arguments.check, arguments.min_accuracy)
    if not checked.refused:
        return checked
    for network in plan.networks:
        for note in network.notes:
            tqdm.write(note, file=sys.stderr)
    text = json.dumps({"check": checked.facts}) if arguments.json else printable_text(checked)
    tqdm.write(text, file=sys.stdout)
    raise AccuracyError("\n".join([*checked.refused, "Nothing was published."]))


def printable_text(checked: Checked) -> str:
    """The findings as text that this terminal can show."""
    return encodable(checked.text).rstrip("\n")
