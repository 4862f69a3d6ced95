"""`--check` of `car-analyzer export` and `car-analyzer publish`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ._cli_check import share
from .errors import AccuracyError, SpecError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from .checking.outcome import Outcome
    from .plan import Plan

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


def check_labelled(plan: Plan, arguments: argparse.Namespace, step: Callable[[str], object]) -> Outcome | None:
    """Checks the networks on the photos of `--check`; None without it.

    Raises:
        AccuracyError: They do not know them well enough. What was found out is printed already.
        SpecError: There is nothing to be checked.
    """
    if arguments.check is None:
        return None
    from .checking.errors import CheckError
    from .checking.planned import check_plan
    from .graph import check_network

    for network in plan.networks:
        check_network(network)
    try:
        outcome, refused = check_plan(plan, arguments.check, arguments.min_accuracy, step)
    except CheckError as error:
        raise SpecError(f"--check: {error}") from error
    if not refused:
        return outcome
    for network in plan.networks:
        for note in network.notes:
            tqdm.write(note, file=sys.stderr)
    tqdm.write(json.dumps({"check": outcome.to_dict()}) if arguments.json else lines(outcome), file=sys.stdout)
    raise AccuracyError("\n".join([*refused, "Nothing was published."]))


def lines(outcome: Outcome) -> str:
    """What was found out, as text for this terminal."""
    from .checking.text import as_text, encodable

    return encodable(as_text(outcome)).rstrip("\n")
