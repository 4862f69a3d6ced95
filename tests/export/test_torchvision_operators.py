"""A torchvision that was compiled for another PyTorch does not stop an export."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Fails to import as torchvision does without its compiled part.
TORCHVISION = """
import torch


@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return scores


class Network(torch.nn.Linear):
    pass
"""
ARCHITECTURE = """
from torchvision import Network


def build():
    return Network(3, 2)
"""
LATER = """
def build():
    from torchvision import Network

    return Network(3, 2)
"""
# Each way that an export comes to import torchvision.
LIBRARY = "zoo.import_library('torchvision').Network(3, 2)"
FILE = "call_factory('network.py:build', {})"
PICKLE = "read_checkpoint(Path('network.pth'), trust_pickle=True).module"
SCRIPT = """
from pathlib import Path

from car_analyzer_export.architectures import zoo
from car_analyzer_export.architectures.factory import call_factory
from car_analyzer_export.checkpoints import read_checkpoint

print(type({way}).__name__)
"""
SAVE = """
import torch

torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchvision import Network

torch.save(Network(3, 2), "network.pth")
"""


def run(script: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("way", "architecture"),
    [(LIBRARY, ""), (FILE, ARCHITECTURE), (FILE, LATER), (PICKLE, "")],
    ids=["library", "file", "factory", "pickle"],
)
def test_a_network_is_built(way: str, architecture: str, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text(TORCHVISION)
    (tmp_path / "network.py").write_text(architecture)
    if way == PICKLE:
        run(SAVE, tmp_path)
    assert run(SCRIPT.format(way=way), tmp_path) == "Network\n"
