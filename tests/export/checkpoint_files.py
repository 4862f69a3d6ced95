"""Checkpoints of all kinds, written as training scripts write them."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from car_analyzer_export.checkpoints import Checkpoint

# Writing TorchScript warns of its deprecation; reading must not.
QUIET_WHILE_WRITING = [
    pytest.mark.filterwarnings(r"ignore:(?s).*torch\.jit\.:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:(?s).*(TypedStorage|quantized|torch\.ao)"),
]


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=4),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    ).eval()


WEIGHTS: dict[str, torch.Tensor] = network().state_dict()
CLEAN = {"clean": 0, "dirty": 1}


def averaged() -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in WEIGHTS.items()}


def training(key: str = "model_state_dict", **more: Any) -> dict[str, Any]:
    """What a training script saves, with a step of Adam and its scheduler behind it."""
    trained = network()
    optimizer = torch.optim.AdamW(trained.parameters())
    trained(torch.ones(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "loss": [0.5, 0.25]}
    return {key: WEIGHTS, "epoch": 12, **state, **more}


def everyday_types() -> dict[str, Any]:
    """Values that the weights-only unpickler rejects by itself, or that need care."""
    return {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs/1"), arch="resnet18", image_size=224),
        "namespace": types.SimpleNamespace(x=1),
        "best": np.float64(0.9),
        "steps": np.int64(3),
        "done": np.bool_(True),
        "threshold": np.float32(0.25),
        "classes": np.array(["clean", "dirty"]),
        "confusion": np.eye(2),
        "objects": np.array(["a", "b"], dtype=object),
        "numpy_random": np.random.get_state(),
        "random": torch.get_rng_state(),
        "when": datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc),
        "took": datetime.timedelta(hours=3),
        "history": collections.defaultdict(list, {"loss": [1.0]}),
        "recent": collections.deque([0.1], maxlen=3),
        "counts": collections.Counter("aab"),
        "ordered": collections.OrderedDict(a=1),
        "frozen": frozenset([1]),
        "set": {1, 2},
        "nothing": b"",
        "bytes": b"\x00\xff",
        "torch": torch.__version__,
        "dtype": torch.float16,
        "device": torch.device("cuda:0"),
        "size": torch.Size([1, 2]),
        "large": 1 << 70,
    }


def saved(folder: Path, value: Any, name: str = "model.pth", **options: Any) -> Path:
    torch.save(value, folder / name, **options)
    return folder / name


def written(folder: Path, content: bytes, name: str = "model.pth") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def zipped(folder: Path, *names: str) -> Path:
    with zipfile.ZipFile(folder / "model.pth", "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return folder / "model.pth"


def safetensors(folder: Path, name: str = "model.safetensors", **metadata: str) -> Path:
    save_file(WEIGHTS, folder / name, metadata={"format": "pt", **metadata})
    return folder / name


def scripted(folder: Path) -> Path:
    torch.jit.save(torch.jit.script(network()), str(folder / "model.pt"))
    return folder / "model.pt"


def exported(folder: Path, *, dynamic: Any = True, model: torch.nn.Module | None = None) -> Path:
    shapes = ({0: torch.export.Dim("batch", **({} if dynamic is True else dynamic))},) if dynamic else None
    program = torch.export.export(model or network(), (torch.ones(2, 3, 16, 16),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


def same(checkpoint: Checkpoint, weights: dict[str, torch.Tensor]) -> bool:
    assert checkpoint.weights is not None
    assert checkpoint.weights.keys() == weights.keys()
    assert all(type(tensor) is torch.Tensor and tensor.device.type == "cpu" for tensor in checkpoint.weights.values())
    return all(
        tensor.dtype == weights[name].dtype and torch.equal(tensor, weights[name])
        for name, tensor in checkpoint.weights.items()
    )
