"""A small network that ends in every way in which networks end."""

from __future__ import annotations

import torch
from torch import nn

from tests.export.zoo import Small

ENDINGS = {
    "plain": lambda logits: logits,
    "softmax_module": nn.Softmax(dim=1),
    "softmax": lambda logits: nn.functional.softmax(logits, dim=-1),
    "softmax_reshaped": lambda logits: logits.softmax(1).to(torch.float64)[:, :, None].squeeze(2).float(),
    "softmax_turned": lambda logits: logits.softmax(1)[:, [1, 0]],
    "softmax_dropout": lambda logits: nn.functional.dropout(logits.softmax(1), 0.5, training=False),
    "softmax_clamped": lambda logits: logits.softmax(1).clamp(1e-7, 1 - 1e-7),
    "softmax_by_hand": lambda logits: logits.exp() / logits.exp().sum(1, keepdim=True),
    "softmax_averaged": lambda logits: (logits.softmax(1) + (logits / 2).softmax(1)) / 2,
    "log_softmax": lambda logits: logits.log_softmax(1),
    "sigmoid": torch.sigmoid,
    "sigmoid_squeezed": lambda logits: logits.sigmoid().squeeze(1),
    "sigmoid_of_the_other": lambda logits: 1 - logits.sigmoid(),
    "sigmoid_and_the_other": lambda logits: torch.cat([1 - logits.sigmoid(), logits.sigmoid()], dim=1),
    "clamped": lambda logits: logits.clamp(0, 1),
    "bounded": lambda logits: (logits.sigmoid() + (logits + 1).sigmoid()) / 2,
    "small": lambda logits: 0.5 + logits / 30,
}


class Ending(Small):
    def __init__(self, ending: str, classes: int = 2) -> None:
        super().__init__(classes)
        self.ending = ENDINGS[ending]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.ending(super().forward(images))


class Several(Small):
    """One output of each kind, as a dict."""

    def __init__(self) -> None:
        super().__init__(8)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = super().forward(images)
        return {
            "dirt": logits[:, :2].softmax(1),
            "tires": logits[:, 2:5].softmax(1),
            "damaged": logits[:, 5].sigmoid(),
            "marks": logits[:, 6:8].sigmoid(),
            "plain": logits[:, :2],
        }
