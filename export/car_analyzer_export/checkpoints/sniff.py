"""Recognises the kind of a file by its content, never by its name."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Literal

from ..errors import CheckpointError
from .pickle_names import read_names

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["zip", "legacy", "safetensors"]

HEAD_BYTES = 65536
SAVE_INSTEAD = "save network.state_dict() with torch.save instead"
NO_NETWORK = "data, not a network; give the file that torch.save(network.state_dict(), file) wrote"
CUT_OFF = "is cut off: {}; copy or download it again, completely."

# The pickled number at the start of what torch.save wrote before it wrote zip files.
_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_UNPACK = "is a {} archive; unpack it and give the checkpoint inside"
_KERAS = "is an HDF5 file, as Keras and TensorFlow write; only PyTorch checkpoints can be exported"
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"version https://git-lfs",
        "is a Git LFS pointer, not the checkpoint itself; run `git lfs pull` in its repository",
    ),
    (0, b"\x1f\x8b", _UNPACK.format("gzip")),
    (0, b"BZh", _UNPACK.format("bzip2")),
    (0, b"\xfd7zXZ\x00", _UNPACK.format("xz")),
    (0, b"7z\xbc\xaf\x27\x1c", _UNPACK.format("7z")),
    (0, b"Rar!\x1a\x07", _UNPACK.format("RAR")),
    (0, b"\x28\xb5\x2f\xfd", _UNPACK.format("Zstandard")),
    (0, b"\x04\x22\x4d\x18", _UNPACK.format("LZ4")),
    (0, b"x\x9c", "is a zlib-compressed pickle, as joblib writes; " + SAVE_INSTEAD),
    (0, b"x\x01", "is a zlib-compressed pickle, as joblib writes; " + SAVE_INSTEAD),
    (0, b"x\xda", "is a zlib-compressed pickle, as joblib writes; " + SAVE_INSTEAD),
    (0, b"\x89HDF\r\n\x1a\n", _KERAS),
    (0, b"\x93NUMPY", "is a NumPy array (.npy): " + NO_NETWORK),
    (0, b"GGUF", "is a GGUF file, not an image classifier of PyTorch; give the PyTorch checkpoint"),
    (4, b"TFL3", "is a TensorFlow Lite model; only PyTorch checkpoints can be exported"),
    (4, b"PTMF", "is a TorchScript file for mobile devices; give the checkpoint it was made from"),
    (4, b"ET12", "is an ExecuTorch program; give the checkpoint it was made from"),
    (0, b"\x08\x01\x12", "is a TensorFlow SavedModel; only PyTorch checkpoints can be exported"),
)
_TAR_MAGIC = (257, b"ustar")
_LEGACY_TAR_MEMBERS = (b"sys_info", b"pickle", b"storages", b"tensors")


def identify(head: bytes) -> Kind:
    """Recognises the container by the first `HEAD_BYTES` of the file.

    Raises:
        CheckpointError: It is another kind of file; the message says which.
    """
    if not head:
        raise CheckpointError("not a checkpoint that PyTorch can read: the file is empty; copy or download it again.")
    for offset, signature, what in _SIGNATURES:
        if head.startswith(signature, offset):
            raise CheckpointError(f"{what}.")
    if head.startswith(_ZIP):
        return "zip"
    if any(start.startswith(head) for start in (*_ZIP, b"\x80\x02" + _LEGACY_MAGIC)):
        raise CheckpointError(CUT_OFF.format(f"the file ends after {len(head)} bytes"))
    if head.startswith(_TAR_MAGIC[1], _TAR_MAGIC[0]) or head.startswith(_LEGACY_TAR_MEMBERS):
        raise CheckpointError(_describe_tar(head))
    if head[8:9] == b"{" and (int.from_bytes(head[:8], "little") < 1 << 32 or head[8:10] == b'{"'):
        return "safetensors"
    # Another pickle protocol puts a few bytes before the number.
    if _LEGACY_MAGIC in head[:32]:
        return "legacy"
    raise CheckpointError(_describe_pickle(head) or _describe_text(head) or _describe_binary(head))


def describe_folder(path: Path) -> str:
    """Describes a folder that was given instead of a checkpoint, and what to give."""
    if (path / "saved_model.pb").exists():
        return "is a TensorFlow SavedModel; only PyTorch checkpoints can be exported."
    if (path / "data.pkl").exists():
        return "is an unpacked checkpoint; give the file as torch.save wrote it."
    found = sorted(file.name for ending in ("*.safetensors", "*.bin", "*.pt*", "*.ckpt") for file in path.glob(ending))
    return f"is a folder; give the checkpoint inside{f', such as {found[0]}' if found else ''}."


def _describe_tar(head: bytes) -> str:
    if head.startswith(_LEGACY_TAR_MEMBERS):
        # PyTorch cannot read these with weights_only.
        return (
            "was written by PyTorch 0.1.1 or older, whose format cannot be read without running code from it; "
            "load it there and save network.state_dict() with a newer PyTorch."
        )
    return f"{_UNPACK.format('tar')}."


def _describe_pickle(head: bytes) -> str | None:
    pickle = read_names(io.BytesIO(head))
    names = pickle.classes
    if not head.startswith(b"\x80") and not (names and pickle.complete):
        return None
    families = {name.partition(".")[0] for name in names}
    if families & {"sklearn", "joblib", "xgboost", "lightgbm", "catboost"}:
        return f"is a pickled scikit-learn or joblib model ({names[0]}), not a PyTorch checkpoint; {SAVE_INSTEAD}."
    if families and families <= {"numpy", "_codecs"}:
        return f"is a pickle of NumPy arrays: {NO_NETWORK}."
    what = f" that names {listed(names)}" if names else ""
    return f"rejected, because it is a Python pickle{what}, not written by torch.save; {SAVE_INSTEAD}."


def _describe_text(head: bytes) -> str | None:
    # The head may end inside a character.
    text = head.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")
    if len(text.encode()) < len(head.strip()) - 8 or re.search(r"[\x00-\x08\x0e-\x1f]", text):
        return None
    if text.startswith("<"):
        return (
            "is a web page (HTML or XML), not a checkpoint; the download was refused or needs a login, so download the "
            "file itself."
        )
    if '"weight_map"' in text:
        return "is the index of a checkpoint in several shards; merge them into one file (load them and save once)."
    if text.startswith(("{", "[")):
        return "is a JSON file, not a checkpoint; give the weights it belongs to."
    return "is a text file, not a checkpoint; give the file that torch.save wrote."


def _describe_binary(head: bytes) -> str:
    # An ONNX file is a protobuf without a signature: field 1 is its version, and a field of text or the graph follows.
    if head[0] == 0x08 and 3 <= head[1] <= 32 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42"):
        return "is an ONNX model already; give the PyTorch checkpoint it was made from."
    return (
        "not a checkpoint that PyTorch can read: neither torch.save nor safetensors wrote it, or its start is damaged."
    )


def listed(names: list[str]) -> str:
    """Joins the first three names, and says how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name[:80] for name in names[:3]) + more
