"""Keys, and the ways in which a signed model repository can be changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from car_analyzer_export.repository.signature import Signature

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Keys:
    private: Path
    public: Path


def make_keys(folder: Path, name: str = "sign") -> Keys:
    keys = Keys(folder / f"{name}.key", folder / f"{name}.pub")
    key = ec.generate_private_key(ec.SECP256R1())
    keys.private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    keys.public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return keys


def sign(repository: Path, keys: Keys) -> None:
    Signature(repository, keys.private).renew()


def _flipped(file: str) -> Callable[[Path], None]:
    def change(repository: Path) -> None:
        content = bytearray((repository / file).read_bytes())
        content[len(content) // 2] ^= 1
        (repository / file).write_bytes(content)

    return change


def _added(file: str) -> Callable[[Path], None]:
    def change(repository: Path) -> None:
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        (repository / file).write_bytes(b"# another file")

    return change


def _with_bytecode(repository: Path) -> None:
    cache = repository / "preprocess" / "1" / "__pycache__"
    cache.unlink()
    cache.mkdir()
    (cache / "guard.cpython-311.pyc").write_bytes(b"")


_FILES = (
    "cleanliness/1/model.onnx",
    "cleanliness/1/labels.txt",
    "cleanliness/config.pbtxt",
    "car_analyzer/config.pbtxt",
    "car_analyzer/1/condition_labels.txt",
    "car_analyzer/1/export.json",
    "preprocess/1/model.py",
    "preprocess/1/views.json",
)
_NEW_FILES = (
    "preprocess/1/numpy.py",
    "preprocess/1/guard.pyc",
    "cleanliness/2/model.onnx",
    "other/config.pbtxt",
    # None of these is where Python or Git would put them: Triton loads a model from any folder of the repository.
    "__pycache__/config.pbtxt",
    ".git/config.pbtxt",
    "preprocess/__pycache__/1/model.py",
)
# What happened to the repository → what must be said about it.
CHANGES = [
    *(pytest.param(_flipped(file), f"{file} was changed", id=f"flipped {file}") for file in _FILES),
    *(pytest.param(_added(file), f"{file} was added", id=f"added {file}") for file in _NEW_FILES),
    pytest.param(
        lambda repository: (repository / "preprocess/1/photo_log.py").unlink(),
        "preprocess/1/photo_log.py is missing",
        id="removed",
    ),
    pytest.param(
        lambda repository: (repository / "condition/1/labels.txt").rename(repository / "condition/1/words.txt"),
        "condition/1/labels.txt is missing; condition/1/words.txt was added",
        id="renamed",
    ),
    pytest.param(
        _with_bytecode,
        "preprocess/1/__pycache__ is missing; preprocess/1/__pycache__/guard.cpython-311.pyc was added",
        id="bytecode",
    ),
    pytest.param(lambda repository: (repository / "model.sig").unlink(), "model.sig is missing", id="no signature"),
    pytest.param(
        lambda repository: (repository / "model.sig").write_text("{}"), "is not a valid signature", id="empty signature"
    ),
    pytest.param(_flipped("model.sig"), "model.sig is not a valid signature", id="flipped signature"),
]
