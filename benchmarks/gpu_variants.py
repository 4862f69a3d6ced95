"""What is measured on a GPU. Importing this needs nothing: the machine that measures may have no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

# As in `materials` and `rivals.networks`.
SIZES = ("s", "m", "l")
NETWORKS = ("tiny", "resnet18", "resnet50")


@dataclass(frozen=True)
class Variant:
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
        return f"{self.accelerator} {self.precision} {self.preprocess}"


# The most telling first: when the time is over, the rest is left out.
VARIANTS = [
    Variant("cuda", "fp16", "dali"),
    Variant("cuda", "fp32", "pillow"),
    Variant("tensorrt", "fp16", "dali"),
    Variant("cuda", "fp32", "dali"),
    Variant("cuda", "fp16", "pillow"),
    Variant("tensorrt", "int8", "dali"),
    Variant("tensorrt", "fp32", "dali"),
    Variant("cuda", "int8", "dali"),
]
