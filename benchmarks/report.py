"""Figures as Markdown tables and as bars."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def as_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def middle(values: Iterable[float | None], form: str = ".0f", unit: float = 1) -> str:
    """The median of the values that are known, as the cell of a table; "" if none is."""
    known = [value / unit for value in values if value is not None]
    return format(statistics.median(known), form) if known else ""


def draw_bars(panels: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Draws photos a second as bars, with the spread of each, into a PNG: title of a panel → name of a bar → rates."""
    figure = Figure(figsize=(9, 1 + 0.28 * sum(map(len, panels.values())) + 0.8 * len(panels)), layout="constrained")
    sizes = [len(bars) + 2 for bars in panels.values()]
    grid: Any = figure.subplots(len(panels), 1, squeeze=False, height_ratios=sizes)
    for axes, (title, bars) in zip(grid[:, 0], panels.items(), strict=True):
        names = list(bars)[::-1]
        medians = [statistics.median(bars[name]) for name in names]
        below = [median - min(bars[name]) for name, median in zip(names, medians, strict=True)]
        above = [max(bars[name]) - median for name, median in zip(names, medians, strict=True)]
        colours = ["tab:gray" if name == "limit" else "tab:green" if "car" in name else "tab:blue" for name in names]
        drawn = axes.barh(names, medians, xerr=[below, above], color=colours, capsize=3)
        axes.bar_label(drawn, fmt=lambda rate: f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}", padding=4, fontsize=8)
        axes.set(title=title, xlabel="photos a second")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=110)
