"""Pickles that would run code with Python's unpickler."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import torch

from .hostile import (
    LEGACY_MAGIC,
    LEGACY_VERSION,
    NO_KEYS,
    PROTO,
    STOP,
    WEIGHTS,
    Call,
    Gadget,
    Reducing,
    attack,
    legacy,
    plain,
    reduce_system,
    saved,
    text,
    torch_zip,
)


@attack("names os.system", live=True)
def _reduce_in_zip(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + reduce_system(canary) + STOP)


@attack("names builtins.exec", live=True)
def _exec_in_zip(folder: Path, canary: Path) -> Path:
    return saved(folder, {**WEIGHTS, "loss": Call(exec, f"open({str(canary)!r}, 'w')")})


@attack("names posix.system", live=True)
def _code_beside_good_weights(folder: Path, canary: Path) -> Path:
    return saved(
        folder, {"state_dict": WEIGHTS, "epoch": 3, "args": {"deep": [{"er": (Call(os.system, f"touch {canary}"),)}]}}
    )


@attack("names os.system", live=True)
def _code_as_weight_name(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"}" + reduce_system(canary) + b"K\x01s" + STOP)


@attack("names posix.system", live=True)
def _network_that_reduces(folder: Path, canary: Path) -> Path:
    return saved(folder, Reducing(canary))


@attack("names posix.system", live=True)
def _reduce_in_legacy(folder: Path, canary: Path) -> Path:
    return saved(
        folder, {"state_dict": WEIGHTS, "x": Call(os.system, f"touch {canary}")}, _use_new_zipfile_serialization=False
    )


@attack("names os.system", live=True)
def _code_in_legacy_machine(folder: Path, canary: Path) -> Path:
    bad = PROTO + reduce_system(canary) + STOP
    return plain(folder, LEGACY_MAGIC + LEGACY_VERSION + bad + pickle.dumps({}, 2) + NO_KEYS)


@attack("names os.system", live=True)
def _code_in_legacy_keys(folder: Path, canary: Path) -> Path:
    return legacy(folder, pickle.dumps({}, 2), keys=PROTO + reduce_system(canary) + STOP)


@attack("names os.system", live=True)
def _inst(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, b"(S'touch " + str(canary).encode() + b"'\nios\nsystem\n.")


@attack("names os.system", live=True)
def _obj(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + b"(cos\nsystem\n" + text(f"touch {canary}") + b"o" + STOP)


@attack(".Gadget, which", live=True)
def _newobj(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + gadget() + text(str(canary)) + b"\x85\x81" + STOP)


@attack(".Gadget, which", live=True)
def _build_setstate(folder: Path, canary: Path) -> Path:
    return torch_zip(folder, PROTO + gadget() + b")\x81" + text(str(canary)) + b"b" + STOP)


@attack("names os.system", live=True)
def _stack_global(folder: Path, canary: Path) -> Path:
    data = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93" + text(f"touch {canary}") + b"\x85R."
    return torch_zip(folder, data)


@attack("names torch.serialization.os.system", live=True)
def _dotted_name_inside_torch(folder: Path, canary: Path) -> Path:
    data = b"\x80\x04\x8c\x13torch.serialization\x94\x8c\x09os.system\x94\x93" + text(f"touch {canary}") + b"\x85R."
    return torch_zip(folder, data)


@attack("names torch.storage._load_from_bytes", live=True)
def _nested_pickle_through_torch(folder: Path, canary: Path) -> Path:
    inner = io.BytesIO()
    torch.save(Reducing(canary), inner, _use_new_zipfile_serialization=False)
    return saved(folder, Call(torch.storage._load_from_bytes, inner.getvalue()))


@attack("posix.system")
def _rebuild_type_calls_anything(folder: Path, canary: Path) -> Path:
    command = (f"touch {canary}",)
    return saved(folder, Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, command, None))


@attack("posix.system, not written by torch.save", live=True)
def _plain_pickle(folder: Path, canary: Path) -> Path:
    return plain(folder, pickle.dumps({"state_dict": Call(os.system, f"touch {canary}")}))


@attack("os.system, not written by torch.save", live=True)
def _pickle_of_protocol_0(folder: Path, canary: Path) -> Path:
    return plain(folder, b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")


def gadget() -> bytes:
    return f"c{Gadget.__module__}\nGadget\n".encode()
