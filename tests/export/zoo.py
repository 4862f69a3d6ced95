"""What the export's cases are made of: a small network in every shape that people's networks have, and torchvision."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import nn

from car_analyzer_export.architectures.zoo import import_library


def import_torchvision(module: str) -> Any:
    """Imports a module of torchvision; skips the test where it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    return import_library(module)


class Small(nn.Module):
    """Sees edges and colours, and answers with logits far enough apart that a changed pixel shows."""

    def __init__(self, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 16, 3, stride=2),
            nn.ReLU(),
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, classes)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * self.drop(self.features(images).mean((2, 3)))

    def forward(self, images: torch.Tensor) -> Any:
        return self.head(self.embed(images))


class OneLogit(Small):
    """The last axis squeezed away, as for BCEWithLogitsLoss."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images).squeeze(1)


class TupleOfTwo(Small):
    def __init__(self) -> None:
        super().__init__(2)
        self.second = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> Any:
        embedded = self.embed(images)
        return self.head(embedded), self.second(embedded)


class DictOfTwo(TupleOfTwo):
    def forward(self, images: torch.Tensor) -> Any:
        first, second = super().forward(images)
        return {"dirt": first, "tires": second}


def seeded(make: Any, seed: int) -> Any:
    """A network with weights of its own, and statistics as if it had been trained."""
    torch.manual_seed(seed)
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()
