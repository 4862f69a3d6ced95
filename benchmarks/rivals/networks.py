"""Networks to measure with. Their weights are random: time does not depend on them.

`tiny` costs next to nothing, as a network on a GPU does: what is left is the way from the photo to it. Also imported by
the Flask rival, so it needs nothing but PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


def tiny() -> nn.Module:
    """One convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def resnet18() -> nn.Module:
    """ResNet-18 with two classes (He et al., arXiv:1512.03385)."""
    return _resnet((2, 2, 2, 2), bottleneck=False)


def resnet50() -> nn.Module:
    """ResNet-50 with two classes."""
    return _resnet((3, 4, 6, 3), bottleneck=True)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"tiny": tiny, "resnet18": resnet18, "resnet50": resnet50}


class _Block(nn.Module):
    def __init__(self, width: int, inner: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.out = 4 * inner if bottleneck else inner
        parts: tuple[tuple[int, int, int, int], ...]
        if bottleneck:
            parts = ((width, inner, 1, 1), (inner, inner, 3, stride), (inner, self.out, 1, 1))
        else:
            parts = ((width, inner, 3, stride), (inner, inner, 3, 1))
        layers = [layer for part in parts for layer in (*_convolution(*part), nn.ReLU())]
        self.body = nn.Sequential(*layers[:-1])
        same = width == self.out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(width, self.out, 1, stride))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(features) + self.shortcut(features))


def _convolution(width: int, out: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out)


def _resnet(depths: tuple[int, ...], *, bottleneck: bool) -> nn.Module:
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for stage, depth in enumerate(depths):
        for position in range(depth):
            block = _Block(width, 64 << stage, 2 if stage and not position else 1, bottleneck)
            layers.append(block)
            width = block.out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))
