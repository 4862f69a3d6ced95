"""Figures of a GPU as tables, with the share of the limit that each reaches."""

from __future__ import annotations

from dataclasses import dataclass

from .report import as_table, middle

NETWORKS, PIXELS, DECODER, JPEGS, PARITY = "networks only", "pixels in", "decoder only", "JPEGs in", "parity"
_COLUMNS = (
    "what",
    "batch",
    "photos/s",
    "of the limit",
    "p50, ms",
    "p99, ms",
    "GPU busy, %",
    "GPU memory, MB",
    "errors",
)


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


def as_tables(rows: list[Row], parity: list[dict[str, object]], left_out: list[str]) -> str:
    """Markdown: a table for each section, then the parity of the DALI step, then what could not be measured."""
    parts = []
    for section in dict.fromkeys(row.section for row in rows):
        cells = []
        for row in rows:
            if row.section == section:
                most = limit(row, rows)
                share = f"{row.rate / most[0]:.2f} ({most[1]})" if most else ""
                figures = (f"{row.rate:.0f}", share, f"{row.p50:.2f}", f"{row.p99:.2f}")
                gpu = (middle([row.utilisation]), middle([row.memory]))
                cells.append((row.name, row.batch or "", *figures, *gpu, row.errors or ""))
        parts.append(f"### {section}\n\n{as_table(_COLUMNS, cells)}")
    if parity:
        table = as_table(list(parity[0]), [list(one.values()) for one in parity])
        parts.append(f"### DALI's pixels beside Pillow's\n\n{table}")
    if left_out:
        parts.append("### Left out\n\n" + "\n".join(f"- {one}" for one in left_out))
    return "\n\n".join(parts)
