"""The table that each script ends with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One thing that was tried.

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


def report(rows: list[Row]) -> int:
    """Prints the table; returns the exit code: 0 if nothing was lost and something was tried everywhere, else 1."""
    width = max(len(row.name) for row in rows)
    print(f"{'tried':{width}}  {'count':>7}  {'lost':>5}")
    for row in rows:
        print(f"{row.name:{width}}  {row.tried:7,}  {row.lost:5,}  {row.note}".rstrip())
    broken = [row.name for row in rows if row.lost or not row.tried]
    lost = sum(row.lost for row in rows)
    print(f"{'in all':{width}}  {sum(row.tried for row in rows):7,}  {lost:5,}")
    if broken:
        print(f"NOT AS PROMISED: {', '.join(broken)}")
    return 1 if broken else 0
