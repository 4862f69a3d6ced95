"""Lets torchvision be imported beside a PyTorch that it was not compiled for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def with_torchvision_operators(load: Callable[[], T]) -> T:
    """Calls a function that may import torchvision, also where a CPU and a CUDA build are installed side by side.

    The compiled part of torchvision then fails to load, and its Python part misses two operators for detectors. No
    classifier needs them, so they are declared, and the function is called again.
    """
    try:
        return load()
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
    return load()
