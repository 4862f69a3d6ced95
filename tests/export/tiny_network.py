"""A network of a few weights, which exports in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NETWORK = '''
import torch


def build(classes=2):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=4),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, classes),
    )


def three():
    return build(3)


def two_at_once():
    class Two(torch.nn.Module):
        def forward(self, images):
            return images, images

    return Two()


def broken():
    raise RuntimeError("no such layer")


def text():
    return "a network"


def reshaping():
    class Reshaping(torch.nn.Module):
        """Takes the batch for a constant, so that only the batch it was exported with works."""

        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, images):
            return self.linear(images.mean((2, 3)))[[0, 1]]

    return Reshaping()
'''


def write_network(folder: Path) -> Path:
    file = folder / "network.py"
    file.write_text(NETWORK)
    return file


def make_network(file: Path, factory: str = "build") -> Any:
    namespace: dict[str, Any] = {}
    exec(file.read_text(), namespace)
    torch.manual_seed(0)
    return namespace[factory]()
