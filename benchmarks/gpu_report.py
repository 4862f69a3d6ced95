"""Figures of a GPU as tables, with the share of the limit that each reaches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .report import as_table, middle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NETWORKS, PIXELS, DECODER, JPEGS, PARITY = "networks only", "pixels in", "decoder only", "JPEGs in", "parity"
PEAK = "at its peak"
_COLUMNS = (
    "what",
    "batch",
    "callers",
    "photos/s",
    "of the limit",
    "p50, ms",
    "p99, ms",
    "GPU busy, %",
    "GPU memory, MB",
    "errors",
)

_STEPS = "Of each step: photos in a run: milliseconds in its queue + of a run. Then the cores that are busy."


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        section: One of the above, followed by the photo size where there are several.
        name: What was measured.
        batch: Photos in one run or request; None where the service forms batches.
        rate: Photos a second.
        p50: Median milliseconds of a run or request.
        p99: Likewise, the 99th percentile.
        utilisation: Of the GPU, in percent, the mean while it was measured.
        memory: Of the GPU, in MB, the most while it was measured.
        errors: How many requests failed.
        callers: Requests in flight; None where they are sent at a rate, or where there are no requests.
        steps: By step of the ensemble: photos in a run, milliseconds in its queue, milliseconds of a run.
        cores: Cores in use by kind of process.
        step: The step of the measurement that it belongs to.
    """

    section: str
    name: str
    batch: int | None
    rate: float
    p50: float
    p99: float
    utilisation: float | None = None
    memory: float | None = None
    errors: int = 0
    callers: int | None = None
    steps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cores: dict[str, float] = field(default_factory=dict)
    step: str = ""


def limit(row: Row, rows: list[Row]) -> tuple[float, str] | None:
    """The rate that a measurement can reach at most, and what limits it: the networks alone, or the decoder alone."""
    section, _, size = row.section.partition(", ")
    if section not in (JPEGS, PIXELS):
        return None
    network = " ".join(row.name.split()[:2])
    candidates = [(each.rate, "networks") for each in rows if (each.section, each.name) == (NETWORKS, network)]
    decoders = [each.rate for each in rows if each.section == f"{DECODER}, {size}" and each.name.startswith("decoding")]
    best = [max(candidates)] if candidates else []
    if section == JPEGS and "dali" in row.name and decoders:
        best.append((max(decoders), "decoder"))
    return min(best, default=None)


def best_rates(rows: list[Row]) -> dict[str, dict[str, list[float]]]:
    """The best rate of everything by section, for bars; of a whole service that at its peak."""
    best: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if not row.section.startswith(JPEGS) or row.name.endswith(PEAK):
            rates = best.setdefault(row.section, {}).setdefault(row.name, [0.0])
            rates[0] = max(*rates, row.rate)
    return best


def as_tables(rows: list[Row], parity: list[dict[str, object]], left_out: list[str]) -> str:
    """Markdown: a table or two for each section, then the parity of the DALI step, then what could not be measured."""
    parts = []
    for section in dict.fromkeys(row.section for row in rows):
        some = [row for row in rows if row.section == section]
        parts.append(f"### {section}\n\n{as_table(_COLUMNS, [_cells(row, rows) for row in some])}")
        if steps := sorted({step for row in some for step in row.steps}, key=_by_order):
            parts.append(f"{_STEPS}\n\n{_steps_table(some, steps)}")
    if parity:
        table = as_table(list(parity[0]), [list(one.values()) for one in parity])
        parts.append(f"### DALI's pixels beside Pillow's\n\n{table}")
    if left_out:
        parts.append("### Left out\n\n" + "\n".join(f"- {one}" for one in left_out))
    return "\n\n".join(parts)


def _by_order(step: str) -> tuple[bool, str]:
    return step != "preprocess", step


def _cells(row: Row, rows: list[Row]) -> tuple[object, ...]:
    most = limit(row, rows)
    share = f"{row.rate / most[0]:.2f} ({most[1]})" if most else ""
    figures = (f"{row.rate:.0f}", share, f"{row.p50:.2f}", f"{row.p99:.2f}")
    gpu = (middle([row.utilisation]), middle([row.memory]))
    return (row.name, row.batch or "", row.callers or "", *figures, *gpu, row.errors or "")


def _steps_table(rows: list[Row], steps: list[str]) -> str:
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.cores))
    cells = []
    for row in rows:
        times = ("{:.1f}: {:.1f} + {:.1f}".format(*row.steps[step]) if step in row.steps else "" for step in steps)
        cores = (f"{row.cores[kind]:.1f}" if kind in row.cores else "" for kind in kinds)
        cells.append((row.name, row.callers or "", *times, *cores))
    return as_table(("what", "callers", *steps, *(f"cores: {kind}" for kind in kinds)), cells)
