"""Figures of a run as a table of ratios and as a picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = "limit"
OURS = "car-analyzer"


@dataclass(frozen=True)
class Measurement:
    """One system in one round.

    Attributes:
        case: Network and photo size.
        system: Its name.
        round: Its number.
        rate: Photos a second with all clients.
        p50: Milliseconds with all clients.
        p99: Likewise.
        single: Median milliseconds with one client, after nothing else.
        memory: Bytes after the load; None for the limit.
        first_answer: Seconds from the start to the first answer.
        errors: What came in place of answers.
    """

    case: str
    system: str
    round: int
    rate: float
    p50: float
    p99: float
    single: float | None
    memory: int | None
    first_answer: float | None
    errors: list[str]

    @classmethod
    def of(
        cls,
        case: str,
        system: str,
        number: int,
        load: dict[str, Any],
        one: dict[str, Any] | None = None,
        memory: int | None = None,
        first_answer: float | None = None,
    ) -> Measurement:
        """From what `benchmarks.load` printed with all clients and with one."""
        waited = sorted(load["latencies_ms"]) or [float("nan")]
        return cls(
            case,
            system,
            number,
            len(load["latencies_ms"]) / load["seconds"],
            statistics.median(waited),
            waited[int(len(waited) * 0.99)],
            statistics.median(one["latencies_ms"]) if one and one["latencies_ms"] else None,
            memory,
            first_answer,
            load["errors"],
        )


def as_table(found: list[Measurement]) -> str:
    """A Markdown table for each case: rate, its ratio to the limit of the same round, latency, memory, start."""
    tables = []
    for case in dict.fromkeys(one.case for one in found):
        limits = {one.round: one.rate for one in found if one.case == case and one.system == LIMIT}
        lines = [
            f"### {case}\n",
            "| system | photos/s | of the limit | 1 client, ms | p50, ms | p99, ms | memory, MB | first answer, s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for system in dict.fromkeys(one.system for one in found if one.case == case):
            rounds = [one for one in found if one.case == case and one.system == system]
            shares = [one.rate / limits[one.round] for one in rounds if limits.get(one.round)]
            cells = [
                system,
                f"{_median(one.rate for one in rounds):.1f}",
                f"{_median(shares):.2f} ({min(shares):.2f}-{max(shares):.2f})" if shares else "",
                _cell((one.single for one in rounds), 1, "{:.1f}"),
                f"{_median(one.p50 for one in rounds):.0f}",
                f"{_median(one.p99 for one in rounds):.0f}",
                _cell((one.memory for one in rounds), 1e6, "{:.0f}"),
                _cell((one.first_answer for one in rounds), 1, "{:.1f}"),
            ]
            errors = sum(len(one.errors) for one in rounds)
            lines.append("| " + " | ".join(cells) + " |" + (f" {errors} errors" if errors else ""))
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def draw(found: list[Measurement], file: Path) -> None:
    """Draws each case's rates as bars, with the spread between rounds, into a PNG."""
    cases = list(dict.fromkeys(one.case for one in found))
    figure = Figure(figsize=(9, 2.8 * len(cases)), layout="constrained")
    for axes, case in zip(figure.subplots(len(cases), 1, squeeze=False)[:, 0], cases, strict=True):
        names = list(dict.fromkeys(one.system for one in found if one.case == case))[::-1]
        rates = [[one.rate for one in found if one.case == case and one.system == name] for name in names]
        middles = [_median(few) for few in rates]
        spread = [
            [m - min(few) for m, few in zip(middles, rates, strict=True)],
            [max(few) - m for m, few in zip(middles, rates, strict=True)],
        ]
        colours = [
            "tab:gray" if name == LIMIT else "tab:green" if name.startswith(OURS) else "tab:blue" for name in names
        ]
        axes.barh(names, middles, xerr=spread, color=colours, capsize=3)
        axes.bar_label(
            axes.containers[-1] if len(axes.containers) == 1 else axes.containers[1], fmt="%.3g", padding=4, fontsize=8
        )
        axes.set_title(case)
        axes.set_xlabel("photos a second")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=110)


def _median(values: Any) -> float:
    return float(statistics.median(list(values)))


def _cell(values: Any, unit: float, form: str) -> str:
    known = [value / unit for value in values if value is not None]
    return form.format(statistics.median(known)) if known else ""
