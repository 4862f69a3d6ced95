"""What each trial consists of: its command line, the repository that it serves, and the table that it ends with."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .reference import EXAMPLES


class SkipError(Exception):
    """The trial is impossible on this machine; the message says why."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was tried.
        tried: How many times.
        lost: How many times the promise was broken.
        note: Figures, or what was wrong.
    """

    name: str
    tried: int
    lost: int
    note: str = ""

    @property
    def broken(self) -> bool:
        """Whether the promise was broken, or nothing was tried."""
        return bool(self.lost or not self.tried)


def announce(row: Row) -> Row:
    """Prints a row to stderr as soon as it is known, and returns it."""
    print(f"{row.name}: {row.tried} photos, {row.lost} lost; {row.note}", file=sys.stderr, flush=True)
    return row


def report(rows: list[Row]) -> int:
    """Prints the table; returns the exit code: 0 if nothing was lost and something was tried everywhere, else 1."""
    width = max(len(row.name) for row in rows)
    print(f"{'tried':{width}}  {'count':>7}  {'lost':>5}")
    for row in rows:
        print(f"{row.name:{width}}  {row.tried:7,}  {row.lost:5,}  {row.note}".rstrip())
    print(f"{'total':{width}}  {sum(row.tried for row in rows):7,}  {sum(row.lost for row in rows):5,}")
    broken = [row.name for row in rows if row.broken]
    if broken:
        print(f"FAILED: {', '.join(broken)}")
    return int(bool(broken))


def make_parser(name: str, description: str | None, epilog: str = "") -> argparse.ArgumentParser:
    """The parser of `python -m reliability.NAME`, described by the first line of a docstring."""
    codes = "exit codes: 0 every promise was kept, 1 one was broken, 2 wrong usage"
    return argparse.ArgumentParser(
        prog=f"python -m reliability.{name}",
        description=(description or "").partition("\n")[0],
        epilog=f"{epilog}\n{codes}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_repository(parser: argparse.ArgumentParser) -> None:
    """Adds `--repository`."""
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="one with the demo models; default: export them to a folder"
    )


def export_demo(repository: Path, version: int | None = None) -> Path:
    """Exports the demo models; returns the repository."""
    export(plan_export(Spec.from_file(EXAMPLES / "demo.toml")), repository, version=version)
    return repository
