"""Opens a checkpoint file, reads it by its kind and validates the weights."""

from __future__ import annotations

import hashlib
import re
import stat
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import CheckpointError
from .archive import read_archive
from .beside import facts_beside
from .facts import merge, read_facts
from .model import Checkpoint
from .pickled import load_pickled
from .programs import load_program
from .samples import reject_data
from .sniff import HEAD_BYTES, describe_folder, identify
from .tensors import load_safetensors
from .weights import check_weights, select

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .pickled import Script

_CHUNK = 1 << 20
_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.")


def read_checkpoint(
    path: Path, *, trust_pickle: bool = False, sha256: str | None = None, script: Script | None = None
) -> Checkpoint:
    """Reads a checkpoint onto the CPU, whatever its name ends in.

    Args:
        path: The file.
        trust_pickle: Also take files that run their author's code: pickled networks, TorchScript, torch.export.
        sha256: The digest that the file must have.
        script: Returns the script that pickled a network of its own class, `__main__.Net`; called for a trusted one.

    Raises:
        CheckpointError: The file is missing, damaged, crafted or something else, would have to be trusted, or its
            weights are unusable. The message is one sentence that says what to do.
    """
    try:
        return _read(path, trust_pickle, sha256, script)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {_printable(str(error))}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}; check the path and its permissions.") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: takes more memory than is available; use a larger machine.") from error


def _read(path: Path, trust_pickle: bool, sha256: str | None, script: Script | None) -> Checkpoint:
    wanted = _digest(sha256)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise CheckpointError(describe_folder(path))
    # Opening a pipe or a device could block forever.
    if not stat.S_ISREG(mode):
        raise CheckpointError("is not a regular file; give the checkpoint itself.")
    # One handle for everything: the digest holds for what is read, even if the path is replaced meanwhile.
    with path.open("rb") as file:
        if wanted:
            _check_digest(file, wanted)
        read = _open(file, trust_pickle, script)
    if _SHARD.search(path.name):
        raise CheckpointError("is one of several shards; merge them into one file (load them and save once).")
    documents, notes = [read.facts], list(read.notes)
    for facts, of_facts in facts_beside(path):
        documents.append(facts)
        notes += of_facts
    return Checkpoint(read.weights, read.module, read.container, merge(documents), tuple(map(_printable, notes)))


def _open(file: BinaryIO, trust_pickle: bool, script: Script | None) -> Checkpoint:
    head = file.read(HEAD_BYTES)
    size = file.seek(0, 2)
    match identify(head):
        case "safetensors":
            weights, metadata = load_safetensors(file, size)
            reject_data(weights)
            facts, notes = read_facts(metadata, "its metadata")
            framework = metadata.get("format", "pt")
            if framework != "pt":
                notes += (f"The file was written for '{framework}', whose tensors may have another axis order.",)
            return Checkpoint(check_weights(weights), None, "safetensors", facts, notes)
        case "legacy":
            return _from_pickle(load_pickled(file, size, None, trust_pickle=trust_pickle, script=script))
    archive = read_archive(file, size)
    if archive.kind == "torch.save":
        return _from_pickle(load_pickled(file, size, archive, trust_pickle=trust_pickle, script=script))
    module, facts, notes = load_program(archive.kind, file, archive, trust_pickle=trust_pickle)
    container = "TorchScript" if archive.kind == "TorchScript" else "torch.export program"
    return Checkpoint(_weights_of(module), module, container, facts, notes)


def _from_pickle(loaded: Any) -> Checkpoint:
    found = select(loaded)
    facts, notes = read_facts(found.beside, "its checkpoint")
    weights = check_weights(found.weights) if found.weights is not None else None
    if found.module is not None:
        weights = _weights_of(found.module)
    return Checkpoint(weights, found.module, found.container, facts, found.notes + notes)


def _weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    # A trusted network can return anything in its state_dict.
    state = {name: tensor for name, tensor in module.state_dict().items() if hasattr(tensor, "is_floating_point")}
    return check_weights({name.removeprefix("program."): tensor for name, tensor in state.items()})


def _printable(message: str) -> str:
    """Replaces control codes: messages quote names from the file, and end up in a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in message)


def _digest(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    digest = sha256.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise CheckpointError(f"its expected SHA-256, {sha256[:80]!r}, is not 64 hexadecimal digits; correct it.")
    return digest


def _check_digest(file: BinaryIO, wanted: str) -> None:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    file.seek(0)
    if digest.hexdigest() != wanted:
        raise CheckpointError(
            f"its SHA-256 is {digest.hexdigest()}, not {wanted} as expected; get the right file, or correct the digest."
        )
