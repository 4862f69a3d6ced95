"""What is measured on a GPU: ways to export the networks, and to serve them. Importing this needs nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

# Of the photos (see `command_line.SIZES`, which has one more), and how many of each: a large one has 3 MB.
SIZES = {"s": 8, "m": 4, "l": 2}


class Variant(NamedTuple):
    """One way to export and to serve the networks. What differs from the defaults is an ablation.

    Attributes:
        accelerator: `cuda` or `tensorrt`.
        precision: `fp32`, `fp16` or `int8`.
        preprocess: `pillow` or `dali`.
        batch_sizes: Of the networks; None: the default.
        explain: Export the networks with class activation maps.
        processes: Of the preprocess step; None: the default.
        pixels_on: Where DALI leaves its pixels: `gpu`, or `cpu`.
        official: Run the networks in the official ONNX Runtime backend.
    """

    accelerator: str
    precision: str
    preprocess: str
    batch_sizes: tuple[int, ...] | None = None
    explain: bool = False
    processes: int | None = None
    pixels_on: str = "gpu"
    official: bool = False

    @property
    def name(self) -> str:
        """For tables and the command line."""
        options = {
            f"batches {' '.join(map(str, self.batch_sizes or ()))}": self.batch_sizes is not None,
            "with maps": self.explain,
            f"{self.processes} preprocess process{'es' * (self.processes != 1)}": self.processes is not None,
            "pixels by way of the CPU": self.pixels_on == "cpu",
            "official backend": self.official,
        }
        return ", ".join([" ".join(self[:3]), *(name for name, given in options.items() if given)])

    @property
    def network(self) -> str:
        """The name of the networks alone."""
        return f"{self.accelerator} {self.precision}"

    @property
    def ablation(self) -> bool:
        """Whether anything but the first three differs from the defaults."""
        return self != Variant(*self[:3])

    @property
    def folder(self) -> str:
        """The folder of its model repository, which it shares with variants that are only served in another way."""
        return Variant(*self[:5]).name.replace(",", "").replace(" ", "-")

    def spec(self) -> dict[str, Any]:
        """The keys of its spec; the batch sizes are among the limits."""
        keys = ("accelerator", "precision", "preprocess", "explain")
        return {"target": "gpu"} | {key: getattr(self, key) for key in keys}


_DALI = Variant("cuda", "fp16", "dali")
# What is most worth knowing comes first: when the time is over, the rest is left out.
VARIANTS = (
    _DALI,
    Variant("cuda", "fp16", "pillow"),
    _DALI._replace(processes=1),
    _DALI._replace(processes=2),
    _DALI._replace(processes=8),
    _DALI._replace(pixels_on="cpu"),
    _DALI._replace(official=True),
    Variant("cuda", "fp16", "pillow", processes=16),
    _DALI._replace(batch_sizes=(32,)),
    _DALI._replace(batch_sizes=(1, 16, 64)),
    Variant("cuda", "fp32", "dali"),
    Variant("tensorrt", "fp16", "dali"),
    _DALI._replace(explain=True),
    Variant("cuda", "fp32", "pillow"),
    Variant("cuda", "int8", "dali"),
    Variant("tensorrt", "int8", "dali"),
    Variant("tensorrt", "fp32", "dali"),
)
