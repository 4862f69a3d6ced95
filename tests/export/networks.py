"""Networks with weights as after training."""

from __future__ import annotations

import torch
from torch import nn

from car_analyzer_export.architectures import Built

StateDict = dict[str, torch.Tensor]


def lively(network: nn.Module) -> nn.Module:
    """Sets batch-norm statistics that fit the layers, as training does; without, some networks give one answer only."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None  # the plain average
    torch.manual_seed(1)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 96, 96))
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                value.add_(0.1 * torch.randn(value.shape))
    return network.eval()


def assert_same_answers(built: Built, network: nn.Module, side: int = 96) -> None:
    photos = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, answer = network(photos), built.network.eval()(photos)
    assert (expected[0] - expected[1]).abs().max() > 1e-4
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)
    assert not any(tensor.is_meta for tensor in built.network.state_dict().values())
    assert {tensor.dtype for tensor in built.network.parameters()} == {torch.float32}
    assert built.classes == expected.shape[1]


def head(network: nn.Module, path: str, module: nn.Module) -> nn.Module:
    network.set_submodule(path, module)
    return network


def small_head(features: int, *, first: nn.Module | None = None) -> nn.Sequential:
    layers = [nn.Dropout(0.3), nn.Linear(features, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 2)]
    return nn.Sequential(*([first] if first else []), *layers)


def fresh(network: nn.Module) -> StateDict:
    return network.state_dict()
