"""Large logits are compared by their size and by PyTorch's own rounding error, small ones as strictly as ever."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from car_analyzer_export.errors import NetworkError, VerificationError
from car_analyzer_export.onnx_model.graph import write_onnx
from car_analyzer_export.onnx_model.verify import (
    Comparison,
    Tolerance,
    _check,
    _tolerance,
    check_repeats,
    compare,
    torch_logits,
    torch_outputs,
)
from car_analyzer_export.pictures import comparison_pixels
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.spec import HeadPlan, NetworkPlan

from .tiny_network import make_network

VIEW = View(64, 64)
HEAD = HeadPlan("cleanliness", ("clean", "dirty"))
PIXELS = comparison_pixels(VIEW, 32, None)


class Scaled(torch.nn.Module):
    """Logits times a factor; adding and subtracting an offset loses digits."""

    def __init__(self, network: torch.nn.Module, factor: float, offset: float) -> None:
        super().__init__()
        self.network, self.factor, self.offset = network, factor, offset

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.factor * (self.network(images) + self.offset - self.offset)
        return logits


class OnlyFloat32(Scaled):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) @ torch.eye(2, dtype=torch.float32)


class Dropping(Scaled):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(images), 0.1)


def plan_of(network: torch.nn.Module) -> NetworkPlan:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return NetworkPlan(HEAD.name, network.eval(), mean, std, False, VIEW, (HEAD,), Path("weights.pth"), "a test")


@pytest.fixture
def tiny(network_file: Path) -> torch.nn.Module:
    network: torch.nn.Module = make_network(network_file)
    return network


def test_large_logits_agree_by_their_size(tiny: torch.nn.Module, tmp_path: Path) -> None:
    plan, file = plan_of(Scaled(tiny, 600, 8)), tmp_path / "model.onnx"
    write_onnx(plan, file)
    found = compare(file, plan, PIXELS)["cleanliness"]
    size = float(np.abs(torch_logits(HEAD, torch_outputs(plan, PIXELS))).max())
    assert size > 300
    assert found.tolerance.basis in ("absolute", "relative")  # by how this processor rounds
    assert max(one.max_difference for one in found.batches) <= found.tolerance.limit <= 1e-5 * size
    wrong = dataclasses.replace(plan, mean=(0.485, 0.456, 0.407))
    with pytest.raises(VerificationError, match=r"at most 0\.003\d is accepted for logits up to 3.*something else"):
        compare(file, wrong, PIXELS)


@pytest.mark.parametrize(
    ("factor", "offset", "difference", "basis", "limit"),
    [
        (1, 0, 1e-4, "absolute", 1e-4),
        (1, 0, 2e-4, "absolute", 1e-4),
        (1, 1e4, 2e-4, "absolute", 1e-4),  # whatever PyTorch's rounding error
        (600, 0, 3e-3, "relative", 3.53e-3),
        (600, 0, 1e-2, "relative", 3.53e-3),
        (600, 1000, 3e-3, "relative", 3.53e-3),
        (600, 1000, 5e-3, "float64", 7.2e-2),
        (600, 1e5, 0.5, "float64", 0.353),  # no more than a thousandth
    ],
)
def test_the_tolerance(
    factor: float, offset: float, difference: float, basis: str, limit: float, tiny: torch.nn.Module
) -> None:
    plan = plan_of(Scaled(tiny, factor, offset))
    found = _tolerance(plan, HEAD, PIXELS[:7], 0.589 * factor, difference)
    assert found.basis == basis
    assert found.limit == pytest.approx(limit, rel=0.5 if limit == 7.2e-2 else 0.01)  # as this processor rounds


def test_a_network_without_float64_is_compared_by_its_logits_size(tiny: torch.nn.Module) -> None:
    found = _tolerance(plan_of(OnlyFloat32(tiny, 600, 1000)), HEAD, PIXELS[:7], 353.0, 5e-3)
    assert (found.basis, found.rounding) == ("relative", None)


def test_probabilities_are_compared_as_before(tiny: torch.nn.Module) -> None:
    head = dataclasses.replace(HEAD, probabilities=True)
    assert _tolerance(plan_of(tiny), head, PIXELS[:7], 69.0, 2e-4).limit == 1e-4


@pytest.mark.parametrize(
    ("difference", "agreeing", "rounding", "message"),
    [
        (float("nan"), 0, None, "differ by nan .* not a finite number: check the weights"),
        (0.5, 7, 0.3, "PyTorch's own logits are off by 0.3 .*--photos DIR.*normalisation"),
        (0.5, 7, 0.1, "computes something else"),
        (1e-6, 6, None, "6 of 7 answers agree. An answer is on the decision boundary.*--photos DIR"),
    ],
)
def test_a_failure_names_the_way_out(difference: float, agreeing: int, rounding: float | None, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        _check(Comparison(7, difference, agreeing), Tolerance(1e-4, "absolute", 1.0, rounding))


def test_random_networks_of_any_size_are_found(tiny: torch.nn.Module) -> None:
    check_repeats(plan_of(Scaled(tiny, 600, 1000)), PIXELS)
    for factor in (0.1, 600):
        with pytest.raises(NetworkError, match="The network itself is random"):
            check_repeats(plan_of(Dropping(tiny, factor, 0)), PIXELS)
