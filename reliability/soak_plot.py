"""Plots the samples of a soak test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from .soak import Sample


def draw(samples: list[Sample], file: Path) -> None:
    """Plots memory, latency, open files and losses over time into a PNG."""
    minutes = [sample.minutes for sample in samples]
    figure = Figure(figsize=(9, 9), layout="constrained")
    memory, latency, files = figure.subplots(3, 1, sharex=True)

    memory.plot(minutes, [sample.triton.memory / 1e6 for sample in samples], label="Triton and its stubs")
    memory.plot(minutes, [sample.triton.stubs / 1e6 for sample in samples], label="of these, the stubs")
    memory.plot(minutes, [sample.gateway.memory / 1e6 for sample in samples], label="gateway")
    memory.plot(minutes, [sample.triton.shared / 1e6 for sample in samples], label="shared memory")
    memory.set_ylabel("memory (MB)")

    latency.plot(minutes, [sample.p99 for sample in samples], label="p99", color="tab:red")
    latency.plot(minutes, [sample.median for sample in samples], label="median", color="tab:blue")
    latency.set_ylabel("latency (ms)")

    files.plot(minutes, [sample.triton.files for sample in samples], label="open files of Triton and its stubs")
    files.plot(minutes, [sample.gateway.files for sample in samples], label="open files of the gateway")
    files.plot(minutes, [sample.lost for sample in samples], label="photos lost", color="tab:red")
    files.set_ylabel("count")
    files.set_xlabel("minutes")

    photos = sum(sample.photos for sample in samples)
    figure.suptitle(
        f"{photos:,} valid and invalid photos through gRPC, HTTP and the gateway in {minutes[-1]:.0f} minutes"
    )
    for axes in (memory, latency, files):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize="small", frameon=False)
    figure.savefig(file, dpi=110)
