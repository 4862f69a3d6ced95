"""Tensors that claim more than the file holds."""

# ruff: noqa: ARG001 - not every attack uses the canary

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from .hostile import STOP, Claim, LegacyClaiming, attack, legacy, pickled, saved, tensor, torch_zip


@attack("storage that is not resizable")
def _tensor_past_its_storage(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((1000,), (1,))}))


@attack("storage that is not resizable")
def _tensor_past_its_storage_by_offset(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((2,), (1,), offset=3)}))


@attack("record size (16 bytes) does not match")
def _storage_past_its_record(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((1000,), (1,), items=1000)}))


@attack("get_storage_from_record(): incompatible")
def _storage_of_negative_size(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((1,), (1,), items=-4)}))


@attack("record size (16 bytes) does not match")
def _storage_of_two_sizes(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"a.b": tensor((2,), (1,), items=2), "a.c": tensor((4,), (1,), items=4)}))


@attack("multiplication overflow")
def _negative_size(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((-4, -1), (1, 1))}))


@attack("Storage size calculation overflowed")
def _negative_stride(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((4,), (-1,), offset=3)}))


@attack("invalid storage offset -4")
def _negative_offset(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((4,), (1,), offset=-4)}))


@attack("far larger than the file")
def _expanded_without_end(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((10**12,), (0,))}))


@attack("multiplication overflow")
def _expanded_past_64_bits(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor((1 << 62, 4), (0, 0))}))


@attack("far larger than the file")
def _expanded_a_little_often(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({f"fc.{at}": tensor((1 << 22,), (0,)) for at in range(100)}))


@attack("invalid combination of arguments")
def _shape_of_objects(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, pickled({"fc.weight": tensor(("4",), (1,))}))


@attack("invalid combination of arguments")
def _tensor_changed_afterwards(folder: Path, canary: Path) -> Path:
    """BUILD makes PyTorch call set_() on a finished tensor."""
    made = pickled(tensor((4,), (1,)))[:-1]
    return torch_zip(folder, made + b"K\x00\x85b" + STOP)


@attack("of a kind that cannot be exported")
def _tensor_without_storage(folder: Path, canary: Path) -> Path:
    return saved(folder, {"fc.weight": torch.empty(10**12, device="meta")})


@attack("of a kind that cannot be exported")
def _sparse_tensor_of_any_size(folder: Path, canary: Path) -> Path:
    sparse = torch.sparse_coo_tensor([[0]], [1.0], (10**12,))
    return saved(folder, {"fc.weight": sparse})


@attack("takes far more memory")
def _legacy_storage_of_a_terabyte(folder: Path, canary: Path) -> Path:
    claims = {"fc.weight": tensor((4,), (1,), items=1 << 38)}
    return legacy(folder, pickled(claims, LegacyClaiming), keys=pickle.dumps(["0"], 2), after=b"\0" * 24)


@attack("its tensors take 224,000 bytes or more")
def _legacy_storages_that_add_up(folder: Path, canary: Path) -> Path:
    claims = [Claim(torch.FloatStorage, str(key), 250) for key in range(5000)]
    keys = pickle.dumps([str(key) for key in range(5000)], 2)
    return legacy(folder, pickled(claims, LegacyClaiming), keys=keys, after=b"\0" * 2000)


@attack("a tensor without numbers")
def _legacy_storage_never_filled(folder: Path, canary: Path) -> Path:
    """Without its key it would keep the previous content of the memory."""
    return legacy(folder, pickled({"fc.weight": tensor((4,), (1,))}, LegacyClaiming), after=b"\0" * 24)
