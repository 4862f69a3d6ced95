"""Plots the throughput against the p99 latency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .trial import Trial


def draw(trials: Sequence[Trial], best: Trial | None, budget: float, file: Path) -> None:
    """Draws every trial as a line from few callers to many, and highlights the best one."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")

    def line(trial: Trial, **style: Any) -> None:
        axes.plot([p.rate for p in trial.points], [p.p99 for p in trial.points], marker="o", **style)

    for trial in trials[1:]:
        if trial is not best:
            line(trial, color="0.75", lw=1, label=None if trial is not trials[1] else "other settings")
    line(trials[0], color="tab:orange", label=f"before: {trials[0].choice}")
    if best is not None:
        line(best, color="tab:blue", lw=2.5, label=f"best: {best.choice}")
    if math.isfinite(budget):
        axes.axhline(budget, color="tab:red", ls=":", label=f"budget: {budget:g} ms")
    axes.set(xlabel="photos a second", ylabel="p99 of the latency, ms", yscale="log", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)
    plt.close(figure)
