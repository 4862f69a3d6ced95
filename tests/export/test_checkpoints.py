"""Every ordinary checkpoint is read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from car_analyzer_export.checkpoints import read_checkpoint
from car_analyzer_export.errors import CheckpointError

from .checkpoint_files import (
    CLEAN,
    QUIET_WHILE_WRITING,
    WEIGHTS,
    averaged,
    everyday_types,
    exported,
    network,
    safetensors,
    same,
    saved,
    scripted,
    training,
)

pytestmark = QUIET_WHILE_WRITING

CONTAINERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "state_dict": (lambda at: saved(at, WEIGHTS), "state_dict"),
    "plain dict": (lambda at: saved(at, dict(WEIGHTS)), "state_dict"),
    "no ending": (lambda at: saved(at, WEIGHTS, "model"), "state_dict"),
    "wrong ending": (lambda at: saved(at, WEIGHTS, "model.safetensors"), "state_dict"),
    "parameters": (
        lambda at: saved(at, dict(network().named_parameters()) | dict(network().named_buffers())),
        "state_dict",
    ),
    "legacy state_dict": (lambda at: saved(at, WEIGHTS, _use_new_zipfile_serialization=False), "state_dict"),
    "legacy training": (
        lambda at: saved(at, training(**everyday_types()), _use_new_zipfile_serialization=False),
        "training checkpoint (model_state_dict, epoch 12)",
    ),
    **{
        key: (lambda at, key=key: saved(at, training(key)), f"training checkpoint ({key}, epoch 12)")  # type: ignore[misc]
        for key in (
            "state_dict",
            "model_state_dict",
            "model_state",
            "model",
            "net",
            "network",
            "weights",
            "params",
            "ema",
        )
    },
    "no epoch": (lambda at: saved(at, {"net": WEIGHTS, "acc": 0.9}), "training checkpoint (net)"),
    "another key": (
        lambda at: saved(at, {"classifier": WEIGHTS, "epoch": 1}),
        "training checkpoint (classifier, epoch 1)",
    ),
    "nested": (lambda at: saved(at, {"model": {"state_dict": WEIGHTS, "epoch": 3}}), "training checkpoint (model)"),
    "everyday types": (
        lambda at: saved(at, training(**everyday_types())),
        "training checkpoint (model_state_dict, epoch 12)",
    ),
    "flat": (lambda at: saved(at, {**WEIGHTS, "epoch": 3, "class_to_idx": CLEAN}), "state_dict"),
    "Lightning": (
        lambda at: saved(
            at, training("state_dict", hyper_parameters={}, **{"pytorch-lightning_version": "2.4"}), "a.ckpt"
        ),
        "Lightning checkpoint",
    ),
    "safetensors": (safetensors, "safetensors"),
    "safetensors by content": (lambda at: safetensors(at, "model.pth"), "safetensors"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_its_weights(name: str, tmp_path: Path) -> None:
    make, container = CONTAINERS[name]
    checkpoint = read_checkpoint(make(tmp_path))
    assert checkpoint.container == container
    assert checkpoint.module is None
    assert same(checkpoint, WEIGHTS)


TRUSTED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pickled": (lambda at: saved(at, network()), "pickled network"),
    "pickled, legacy": (lambda at: saved(at, network(), _use_new_zipfile_serialization=False), "pickled network"),
    "pickled in a dict": (lambda at: saved(at, {"model": network(), "epoch": 1}), "pickled network"),
    "TorchScript": (scripted, "TorchScript"),
    "torch.export": (exported, "torch.export program"),
}


@pytest.mark.parametrize("name", TRUSTED)
def test_a_whole_network_needs_trust(name: str, tmp_path: Path) -> None:
    make, container = TRUSTED[name]
    path = make(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"rejected, because it .*; save network\.state_dict\(\).*--trust-pickle if"
    ):
        read_checkpoint(path)
    checkpoint = read_checkpoint(path, trust_pickle=True)
    assert checkpoint.container == container
    assert same(checkpoint, WEIGHTS)
    assert checkpoint.module is not None
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(checkpoint.module.float().eval()(images), network()(images))


def test_trust_changes_nothing_for_plain_weights(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path, training(**everyday_types())), trust_pickle=True)
    assert checkpoint.module is None
    assert same(checkpoint, WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in WEIGHTS.items()}
    assert same(read_checkpoint(saved(tmp_path, weights)), weights)
    assert same(read_checkpoint(saved(tmp_path, weights, _use_new_zipfile_serialization=False)), weights)
    save_file(weights, tmp_path / "model.safetensors")
    assert same(read_checkpoint(tmp_path / "model.safetensors"), weights)


def test_unusual_tensors_are_read(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    weights = {
        "a.tied": shared,
        "b.tied": shared,
        "c.view": shared[2:4],
        "d.transposed": torch.arange(6.0).reshape(2, 3).T,
        "e.expanded": torch.ones(1).expand(512),
        "f.scalar": torch.tensor(0.5),
        "g.empty": torch.empty(0, 3),
        "h.words": torch.tensor([1, 2], dtype=torch.uint16),
        "i.attention_mask": torch.full((2, 2), float("-inf")),
    }
    for zipped_format in (True, False):
        kept = {name: tensor for name, tensor in weights.items() if zipped_format or name != "h.words"}
        assert same(read_checkpoint(saved(tmp_path, kept, _use_new_zipfile_serialization=zipped_format)), kept)


def test_the_plain_weights_are_preferred_to_the_averaged(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path, training("model", ema=averaged())))
    assert same(checkpoint, WEIGHTS)
    assert checkpoint.notes == ("Holds several sets of weights (model, ema); 'model' is used.",)
    alone = read_checkpoint(saved(tmp_path, training("ema_state_dict")))
    assert alone.notes == ("Holds only averaged weights ('ema_state_dict'); they are used.",)


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    extra = read_checkpoint(saved(tmp_path, {"state_dict": {**WEIGHTS, "0._extra_state": None}}))
    assert extra.notes == ("Entries of 'state_dict' that are no tensors were left out: 0._extra_state.",)
    flat = read_checkpoint(saved(tmp_path, {**WEIGHTS, "epoch": 3}))
    assert flat.notes == ("Entries that are no tensors were left out of the weights: epoch.",)


def test_large_finite_weights_are_no_infinity(tmp_path: Path) -> None:
    weights = {"a.b": torch.full((9,), 3e38), "a.c": torch.full((9,), 6e4, dtype=torch.float16)}
    assert same(read_checkpoint(saved(tmp_path, weights)), weights)


def test_a_missing_safetensors_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    path = safetensors(tmp_path)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        read_checkpoint(path)


def test_a_program_says_its_size_and_largest_batch(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(exported(tmp_path, dynamic={"max": 8}), trust_pickle=True)
    assert checkpoint.facts.image_size == (16, 16)
    assert checkpoint.facts.sources == {"image_size": "the program's input"}
    assert checkpoint.notes == ("The torch.export program takes batches of at most 8.",)
