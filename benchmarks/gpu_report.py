"""Figures of a GPU as tables and a picture, with the share of the limit that each reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS, PIXELS, DECODER, JPEGS, PARITY = "networks only", "pixels in", "decoder only", "JPEGs in", "parity"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        section: One of the above, with the photo size behind it where there are several.
        name: What was measured.
        batch: Photos in one run or request; None where it is the service that forms batches.
        rate: Photos a second.
        p50: Milliseconds of a run or request.
        p99: Likewise.
        utilisation: Of the GPU, in percent, the mean while it was measured.
        memory: Of the GPU, in MB, the most while it was measured.
        errors: What came in place of answers.
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
    """What a measurement can reach at most, and what sets that: the networks alone, or the decoder alone."""
    networks = [each for each in rows if each.section == NETWORKS and not each.name.startswith("PyTorch")]
    variant = " ".join(row.name.split()[:2])
    same = [each.rate for each in networks if each.name == variant]
    candidates = [(max(same), "networks")] if same else []
    section, _, size = row.section.partition(", ")
    if section == JPEGS and "dali" in row.name:
        decoders = [each for each in rows if each.section == f"{DECODER}, {size}" and each.name.startswith("decoding")]
        if decoders:
            candidates.append((max(each.rate for each in decoders), "decoder"))
    return min(candidates) if candidates and section in (JPEGS, PIXELS) else None


def as_table(rows: list[Row], parity: list[dict[str, object]], left_out: list[str]) -> str:
    """Markdown: a table for each section, then the parity of the DALI step, then what could not be measured."""
    parts = []
    for section in dict.fromkeys(row.section for row in rows):
        lines = [
            f"### {section}\n",
            "| what | batch | photos/s | of the limit | p50, ms | p99, ms | GPU busy, % | GPU memory, MB | errors |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            if row.section != section:
                continue
            most = limit(row, rows)
            cells = [
                row.name,
                "" if row.batch is None else str(row.batch),
                f"{row.rate:.0f}",
                f"{row.rate / most[0]:.2f} ({most[1]})" if most else "",
                f"{row.p50:.2f}",
                f"{row.p99:.2f}",
                "" if row.utilisation is None else f"{row.utilisation:.0f}",
                "" if row.memory is None else f"{row.memory:.0f}",
                str(row.errors or ""),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    if parity:
        keys = list(parity[0])
        head = ["### DALI's pixels beside Pillow's\n", f"| {' | '.join(keys)} |", "|" + "---|" * len(keys)]
        parts.append("\n".join(head + [f"| {' | '.join(str(one[key]) for key in keys)} |" for one in parity]))
    if left_out:
        parts.append("### Left out\n\n" + "\n".join(f"- {one}" for one in left_out))
    return "\n\n".join(parts)


def draw(rows: list[Row], file: Path) -> None:
    """The rates of each section as bars, the best batch of each, into a PNG."""
    sections = list(dict.fromkeys(row.section for row in rows))
    figure = Figure(figsize=(9, 1 + 2.2 * len(sections)), layout="constrained")
    for axes, section in zip(figure.subplots(len(sections), 1, squeeze=False)[:, 0], sections, strict=True):
        best: dict[str, float] = {}
        for row in rows:
            if row.section == section:
                best[row.name] = max(best.get(row.name, 0), row.rate)
        bars = axes.barh(list(best)[::-1], list(best.values())[::-1], color="tab:green")
        axes.bar_label(bars, fmt="%.4g", padding=4, fontsize=8)
        axes.set_title(section)
        axes.set_xlabel("photos a second")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=110)
