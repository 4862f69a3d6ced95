"""A network that cannot be served is rejected with the real reason, before anything is exported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from car_analyzer_export.errors import CheckpointError, ExportError, NetworkError, SpecError, reason
from car_analyzer_export.onnx_model.verify import check_repeats
from car_analyzer_export.pictures import comparison_pixels
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from tests.conftest import decided

from .checkpoint_files import QUIET_WHILE_WRITING

pytestmark = QUIET_WHILE_WRITING

NETWORKS = """
import torch
from torch import nn
from torch.nn import functional as F


class Dropping(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4)
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        features = F.relu(self.conv(images)).mean((2, 3))
        return self.fc(F.dropout(features))


class Careful(Dropping):
    def forward(self, images):
        features = F.relu(self.conv(images)).mean((2, 3))
        return self.fc(F.dropout(features, training=self.training))


class Score(Careful):
    def __init__(self):
        super().__init__(1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(10, 8, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, words):
        return self.fc(self.lstm(words)[0][:, -1])


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(10, 2)

    def forward(self, images):
        return self.fc(images.flatten(1))
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The networks above, as a module."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    import networks  # type: ignore[import-not-found]

    yield networks
    del sys.modules["networks"]


def spec(networks: Any, name: str, *, head: str = "cleanliness", weights: Path | None = None, **more: Any) -> Spec:
    if weights is None:
        weights = Path(networks.__file__).with_name("weights.pth")
        torch.manual_seed(0)
        torch.save(getattr(networks, name)().state_dict(), weights)
    values = {"weights": weights, "architecture": f"{networks.__file__}:{name}" if name else "auto", **more}
    return decided(Spec.from_values({"heads": {head: values}, "photo_size": 64}, "test"))


def scripted(network: torch.nn.Module, folder: Path) -> Path:
    torch.jit.save(torch.jit.script(network.eval()), str(folder / "script.pt"))
    return folder / "script.pt"


def test_a_random_network_is_rejected(networks: Any) -> None:
    (network,) = plan_export(spec(networks, "Dropping")).networks
    with pytest.raises(
        NetworkError, match=r"random: .* differ by 0\.\d+ from run to run.*F\.dropout\(x\) without train"
    ):
        check_repeats(network, comparison_pixels(network.view, 7, None))
    (network,) = plan_export(spec(networks, "Careful")).networks
    check_repeats(network, comparison_pixels(network.view, 7, None))


def test_a_recurrent_network_takes_no_photos(networks: Any, tmp_path: Path) -> None:
    said = r"takes sequences, not photos: it is made of LSTM layers \(.*got 4D instead\)"
    with pytest.raises(NetworkError, match=said):
        plan_export(spec(networks, "Recurrent"))
    script = scripted(networks.Recurrent(), tmp_path)
    with pytest.raises(NetworkError, match=said):
        plan_export(spec(networks, "", weights=script), trust_pickle=True)


def test_torchscript_fails_with_its_reason(networks: Any, tmp_path: Path) -> None:
    script = scripted(networks.Narrow(), tmp_path)
    with pytest.raises(NetworkError) as caught:
        plan_export(spec(networks, "", weights=script), trust_pickle=True)
    assert str(caught.value) == (
        "Head 'cleanliness': The network fails on a batch of 1 at 64 x 64 pixels: mat1 and mat2 shapes cannot be "
        "multiplied (1x12288 and 10x2)."
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "^Head 'score' has no labels, .* A regression output .* one logit with two labels and a sigmoid, or as"),
        ({"labels": ["score"]}, "^Head 'score' has only the label 'score'; .* A regression output"),
        ({"labels": ["low", "middle", "high"]}, "^Head 'score' has 3 labels, but its network gives one number. A regr"),
    ],
)
def test_a_regression_is_no_head(networks: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan_export(spec(networks, "Score", head="score", **more))


def test_one_logit_must_not_be_a_score(networks: Any) -> None:
    (network,) = plan_export(spec(networks, "Score")).networks
    assert any("The score of a regression would be misread" in note for note in network.notes)


def test_a_network_that_a_script_pickled_is_found_in_the_script(
    networks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.pth"
    with monkeypatch.context() as script:
        script.setattr(networks.Careful, "__module__", "__main__")
        script.setattr(sys.modules["__main__"], "Careful", networks.Careful, raising=False)
        torch.save(networks.Careful(), whole)
    (network,) = plan_export(spec(networks, "Careful", weights=whole), trust_pickle=True).networks
    assert type(network.network).__name__ == "Careful"
    with pytest.raises(CheckpointError, match="pass that script as --architecture FILE.py:Careful"):
        plan_export(spec(networks, "", weights=whole), trust_pickle=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ExportError"),
        ("\n\nNo module named 'x'.\n", "No module named 'x'"),
        ("Error(s) in loading it:\n\tMissing key: 'weight'.\n\tMore", "Error(s) in loading it: Missing key: 'weight'"),
        ("\x1b[96mThis is step 3/3\x1b[0m of it", "This is step 3/3 of it"),
        ("[enforce fail at inline_container.cc:230] . Attempted to read version 99", "Attempted to read version 99"),
        ('type.present() INTERNAL ASSERT FAILED at "/a/b.cpp":531, please report a bug to PyTorch. ', "type.present()"),
        (
            "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript, serialized code "
            '(most recent call last):\n  File "code/x.py", line 1, in forward\nbuiltins.ValueError: too large\n',
            "ValueError: too large",
        ),
    ],
)
def test_the_reason_of_an_error_is_one_line(text: str, said: str) -> None:
    assert reason(ExportError(text)) == said
