"""The ways to export the networks for a GPU. Importing this needs nothing: the GPU machine may have no PyTorch."""

from __future__ import annotations

from typing import NamedTuple

# Of the photos; see `command_line.SIZES`, which has one more.
SIZES = ("s", "m", "l")


class Variant(NamedTuple):
    """One way to export the networks.

    Attributes:
        accelerator: `cuda` or `tensorrt`.
        precision: `fp32`, `fp16` or `int8`.
        preprocess: `pillow` or `dali`.
    """

    accelerator: str
    precision: str
    preprocess: str

    @property
    def name(self) -> str:
        """For tables and folders."""
        return " ".join(self)

    @property
    def network(self) -> str:
        """The name without the preprocess step."""
        return f"{self.accelerator} {self.precision}"


# The most informative ones come first: when the time is over, the rest is left out.
VARIANTS = (
    Variant("cuda", "fp16", "dali"),
    Variant("cuda", "fp32", "pillow"),
    Variant("tensorrt", "fp16", "dali"),
    Variant("cuda", "fp32", "dali"),
    Variant("cuda", "fp16", "pillow"),
    Variant("tensorrt", "int8", "dali"),
    Variant("tensorrt", "fp32", "dali"),
    Variant("cuda", "int8", "dali"),
)
