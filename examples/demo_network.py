"""The demo network: a small convolutional classifier with two outputs, shared by both demo models."""

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
    """Six convolutions, then the average and the maximum of each feature over the picture, then two logits."""

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
        """Classifies pictures.

        Args:
            pictures: float32 [N, 3, 224, 224], RGB, scaled to 0..1 and normalised with the ImageNet mean and deviation.

        Returns:
            Logits, float32 [N, 2].
        """
        features = self.features(pictures)
        # A mark may be small: the maximum finds it, the average tells how much of the car it covers.
        pooled = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)
        logits: torch.Tensor = self.head(self.dropout(pooled))
        return logits


def build() -> nn.Module:
    """Makes the network, untrained; load ``cleanliness_model.pth`` or ``condition_model.pth`` into it.

    Returns:
        A module from float32 [N, 3, 224, 224] to logits float32 [N, 2].
    """
    return DemoNetwork()
