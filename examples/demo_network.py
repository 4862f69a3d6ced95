"""The network of both demo models: a small convolutional classifier with two outputs."""

from __future__ import annotations

import torch
from torch import nn


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class DemoNetwork(nn.Module):
    """From pictures, float32 [N, 3, 224, 224] with ImageNet's mean and deviation, to logits, float32 [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        # Strides come early: most of the work is done on 56x56 features and smaller.
        self.features = nn.Sequential(
            _block(3, 16, 2),  # [N, 16, 112, 112]
            _block(16, 24, 2),  # [N, 24, 56, 56]
            _block(24, 32, 1),
            nn.MaxPool2d(2),  # [N, 32, 28, 28]
            _block(32, 64, 1),
            nn.MaxPool2d(2),  # [N, 64, 14, 14]
            _block(64, 64, 1),
            _block(64, 96, 1),  # [N, 96, 14, 14]
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * 96, 2)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Classifies pictures."""
        features = self.features(pictures)
        # The maximum finds small marks, the average tells how much of the car they cover.
        pooled = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)
        logits: torch.Tensor = self.head(self.dropout(pooled))
        return logits


def build() -> nn.Module:
    """Makes the network, untrained: load ``cleanliness_model.pth`` or ``condition_model.pth`` into it."""
    return DemoNetwork()
