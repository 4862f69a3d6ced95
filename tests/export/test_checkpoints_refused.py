"""Files that are no usable checkpoint are rejected in a sentence."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import pickle
import sys
import tarfile
import types
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from car_analyzer_export.checkpoints import read_checkpoint
from car_analyzer_export.errors import CheckpointError

from .checkpoint_files import (
    QUIET_WHILE_WRITING,
    WEIGHTS,
    exported,
    network,
    safetensors,
    same,
    saved,
    training,
    written,
    zipped,
)

pytestmark = QUIET_WHILE_WRITING


class Picklable:
    """Stands for a class of somebody's training script."""


def onnx_model() -> bytes:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    return onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString()


def numpy_file(folder: Path, *, archive: bool) -> Path:
    stream = io.BytesIO()
    if archive:
        np.savez(stream, a=np.ones(3))
    else:
        np.save(stream, np.ones(3))
    return written(folder, stream.getvalue())


def tensors(folder: Path, values: dict[str, torch.Tensor]) -> Path:
    save_file(values, folder / "data.safetensors")
    return folder / "data.safetensors"


def tarred(folder: Path, name: str) -> Path:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return written(folder, stream.getvalue())


def sklearn_pickle() -> bytes:
    return b"\x80\x04csklearn.svm._classes\nSVC\n)\x81."


def cut(path: Path, keep: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def folder_with(folder: Path, name: str) -> Path:
    (folder / "model").mkdir()
    (folder / "model" / name).write_bytes(b"x")
    return folder / "model"


def with_nan(value: float) -> dict[str, torch.Tensor]:
    return {**WEIGHTS, "6.bias": torch.tensor([0.0, value])}


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 44\n"
DATA = r"data, not a network; give the file that torch\.save"
PHOTOS = torch.zeros(4, 3, 8, 8)
LARGE = {"fc.weight": torch.zeros(50_000)}
MANY = {f"{number}.weight": torch.zeros(200_000) for number in range(100)}
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda at: at / "nowhere.pth", "nowhere.pth: No such file or directory; check the path"),
    "folder": (lambda at: folder_with(at, "readme"), "is a folder; give the checkpoint inside."),
    "Hugging Face folder": (
        lambda at: folder_with(at, "model.safetensors"),
        "is a folder; give the checkpoint inside, such as model.safetensors",
    ),
    "saved_model folder": (lambda at: folder_with(at, "saved_model.pb"), "is a TensorFlow SavedModel; only PyTorch"),
    "unpacked": (lambda at: folder_with(at, "data.pkl"), "is an unpacked checkpoint; give the file"),
    "empty": (lambda at: written(at, b""), "not a checkpoint that PyTorch can read: the file is empty"),
    "half a zip": (
        lambda at: cut(saved(at, LARGE), 0.5),
        r"is cut off: the file ends after 100,\d\d\d bytes without its zip archive's directory; copy or download it",
    ),
    "the first bytes of a zip": (lambda at: cut(saved(at, WEIGHTS), 0.01), "is cut off: the file ends after"),
    "three bytes of a zip": (lambda at: written(at, b"PK\x03"), "is cut off: the file ends after 3 bytes"),
    "zip and something more": (
        lambda at: written(at, saved(at, WEIGHTS).read_bytes() + b"more"),
        "something follows its zip archive; copy or download it again",
    ),
    "half a pickle of legacy": (
        lambda at: cut(saved(at, WEIGHTS, _use_new_zipfile_serialization=False), 0.3),
        "is cut off: it ends within its pickle; copy or download it again",
    ),
    "half a legacy": (
        lambda at: cut(saved(at, LARGE, _use_new_zipfile_serialization=False), 0.5),
        r"is cut off: its tensors take 200,000 bytes or more, and the whole file 100,\d\d\d",
    ),
    "legacy of many tensors, cut": (
        lambda at: cut(saved(at, MANY, _use_new_zipfile_serialization=False), 0.1),
        r"is cut off: its tensors take 8,\d00,000 bytes or more",
    ),
    "legacy without its end": (
        lambda at: cut(saved(at, WEIGHTS, _use_new_zipfile_serialization=False), 0.97),
        r"is cut off: unexpected EOF, expected \d+ more bytes; copy or download it again",
    ),
    "half a pickled network of legacy": (
        lambda at: cut(saved(at, network(), _use_new_zipfile_serialization=False), 0.5),
        "is cut off: it ends within its pickle",
    ),
    "half a safetensors": (
        lambda at: cut(safetensors(at), 0.9),
        r"is cut off: its tensors end at byte [\d,]+, and the file after",
    ),
    "random bytes": (lambda at: written(at, bytes(range(200, 256)) * 9), "neither torch.save nor safetensors wrote it"),
    "LFS pointer": (lambda at: written(at, LFS), "is a Git LFS pointer, not the checkpoint itself; run `git lfs pull`"),
    "HTML": (lambda at: written(at, b"\n<!DOCTYPE html><title>Sign in</title>"), "is a web page .* download the file"),
    "XML": (lambda at: written(at, b'<?xml version="1.0"?><Error>AccessDenied</Error>'), "is a web page"),
    "JSON": (lambda at: written(at, b'{"epoch": 3}'), "is a JSON file, not a checkpoint; give the weights"),
    "sharded index": (
        lambda at: written(at, json.dumps({"metadata": {}, "weight_map": {"a": "model-00001.bin"}}).encode()),
        "is the index of a checkpoint in several shards; merge them",
    ),
    "one shard": (
        lambda at: safetensors(at, "model-00001-of-00002.safetensors"),
        "is one of several shards; merge them",
    ),
    "text": (lambda at: written(at, "Straße, Größe: état".encode()), "is a text file, not a checkpoint"),
    "other zip": (
        lambda at: zipped(at, "model.pth", "readme.txt"),
        "is a zip archive, but torch.save did not write it",
    ),
    "empty zip": (lambda at: zipped(at), "is an empty zip archive"),
    "Keras": (lambda at: zipped(at, "config.json", "metadata.json", "model.weights.h5"), "is a Keras model"),
    "HDF5": (
        lambda at: written(at, b"\x89HDF\r\n\x1a\n" + bytes(99)),
        "is an HDF5 file, as Keras and TensorFlow write",
    ),
    "TensorFlow Lite": (lambda at: written(at, b"\x1c\0\0\0TFL3" + bytes(99)), "is a TensorFlow Lite model"),
    "SavedModel": (lambda at: written(at, b"\x08\x01\x12\x99" + bytes(99)), "is a TensorFlow SavedModel"),
    "ONNX": (lambda at: written(at, onnx_model()), "is an ONNX model already; give the PyTorch checkpoint"),
    "npy": (lambda at: numpy_file(at, archive=False), rf"is a NumPy array \(\.npy\): {DATA}"),
    "npz": (lambda at: numpy_file(at, archive=True), rf"is a NumPy archive \(\.npz\): {DATA}"),
    "scikit-learn": (
        lambda at: written(at, sklearn_pickle()),
        r"is a pickled scikit-learn or joblib model \(sklearn\.svm",
    ),
    "joblib": (lambda at: written(at, zlib.compress(b"x" * 99)), "is a zlib-compressed pickle, as joblib writes"),
    "plain pickle": (lambda at: written(at, pickle.dumps({"a": 1})), "is a Python pickle, not written by torch.save"),
    "pickled tensors": (
        lambda at: written(at, pickle.dumps(WEIGHTS)),
        r"is a Python pickle that names .*, not written by torch\.save; save network\.state_dict\(\)",
    ),
    "gzip": (lambda at: written(at, gzip.compress(b"x")), "is a gzip archive; unpack it"),
    "bzip2": (lambda at: written(at, bz2.compress(b"x")), "is a bzip2 archive; unpack it"),
    "xz": (lambda at: written(at, lzma.compress(b"x")), "is a xz archive; unpack it"),
    "7z": (lambda at: written(at, b"7z\xbc\xaf\x27\x1c" + bytes(99)), "is a 7z archive; unpack it"),
    "rar": (lambda at: written(at, b"Rar!\x1a\x07\x01\x00" + bytes(99)), "is a RAR archive; unpack it"),
    "tar": (lambda at: tarred(at, "model.pth"), "is a tar archive; unpack it"),
    "torch's own tar": (lambda at: tarred(at, "sys_info"), "was written by PyTorch 0.1.1 or older"),
    "list": (lambda at: saved(at, [1, 2]), r"holds a list, not a state_dict \(names and tensors\)"),
    "tensor": (lambda at: saved(at, torch.ones(3)), rf"holds a tensor of shape \[3\]: {DATA}"),
    "list of tensors": (lambda at: saved(at, [PHOTOS, PHOTOS]), f"holds a list of 2: {DATA}"),
    "pairs": (lambda at: saved(at, [(PHOTOS, 1)] * 9), f"holds a list of 9: {DATA}"),
    "images and labels": (
        lambda at: saved(at, {"images": PHOTOS, "labels": torch.ones(4), "classes": ["clean", "dirty"]}),
        f"holds a dict with 'images', 'labels', 'classes': {DATA}",
    ),
    "two splits": (
        lambda at: saved(at, {"train": {"x": PHOTOS, "y": torch.ones(4)}, "val": {"x": PHOTOS}}),
        f"holds a dict with 'train', 'val': {DATA}",
    ),
    "photos by file": (lambda at: saved(at, {"a.jpg": PHOTOS, "b.jpg": PHOTOS}), f"a dict with 'a.jpg', .*: {DATA}"),
    "images in safetensors": (lambda at: tensors(at, {"images": PHOTOS}), f"holds a dict with 'images': {DATA}"),
    "array": (lambda at: saved(at, np.ones((4, 3))), f"holds a NumPy array: {DATA}"),
    "arrays": (lambda at: saved(at, {"x_train": np.ones(4)}), f"holds a dict with 'x_train': {DATA}"),
    "pickled arrays": (
        lambda at: written(at, pickle.dumps({"x": np.ones(4)}, protocol=4)),
        f"is a pickle of NumPy arrays: {DATA}",
    ),
    "weights as arrays": (
        lambda at: saved(at, {"fc.weight": np.ones(4)}),
        "the entry 'fc.weight' is a NumPy array, not a tensor; save it with torch.save",
    ),
    "TensorDataset": (
        lambda at: saved(at, torch.utils.data.TensorDataset(PHOTOS)),
        rf"names torch\.utils\.data\.dataset\.TensorDataset: {DATA}",
    ),
    "nothing": (lambda at: saved(at, {}), "holds an empty state_dict"),
    "no weights": (
        lambda at: saved(at, {"epoch": 3, "loss": torch.ones(1)}),
        "the entry 'epoch' is a int, not a tensor",
    ),
    "optimizer": (
        lambda at: saved(at, {key: value for key, value in training().items() if key != "model_state_dict"}),
        "holds an optimizer's or scheduler's state and no network's weights",
    ),
    "bare optimizer": (lambda at: saved(at, training()["optimizer"]), "holds an optimizer's or scheduler's state"),
    "two networks": (
        lambda at: saved(at, {"generator": WEIGHTS, "critic": WEIGHTS}),
        r"holds several networks \(generator, critic\); save the one",
    ),
    "NaN": (lambda at: saved(at, with_nan(float("nan"))), "the weights '6.bias' hold NaN or infinity"),
    "infinity": (lambda at: saved(at, {"model": with_nan(float("-inf"))}), "the weights '6.bias' hold NaN or infinity"),
    "whole numbers": (
        lambda at: saved(at, {"a.b": torch.ones(2, dtype=torch.int64)}),
        "holds no floating-point tensors",
    ),
    "LoRA": (
        lambda at: saved(at, {"base.fc.lora_A.weight": torch.ones(2), "base.fc.lora_B.weight": torch.ones(2)}),
        "holds only an adapter's weights .*; merge it into its base network",
    ),
    "quantised": (
        lambda at: saved(at, {"a.b": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
        r"holds quantised weights \('a.b'\), which cannot be exported; save network.state_dict",
    ),
    "8-bit floats": (
        lambda at: saved(at, {"a.b": torch.ones(2).to(torch.float8_e4m3fn)}),
        r"holds quantised weights \('a.b'\)",
    ),
    "foreign class": (
        lambda at: saved(at, {"state_dict": WEIGHTS, "config": Picklable()}),
        r"names [\w.]+\.Picklable, which is no part of plain weights and can run code .*--trust-pickle",
    ),
    "four foreign classes": (
        lambda at: saved(at, torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Dropout())),
        r"names torch\.nn\.modules\.container\.Sequential, torch\.nn\.modules\.linear\.Linear, "
        r"torch\.nn\.modules\.activation\.ReLU and 1 more, which are no part",
    ),
    "pickle protocol 4": (
        lambda at: saved(at, WEIGHTS, pickle_protocol=4),
        "another pickle protocol than torch.save's own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_rejected(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda at: exported(at, dynamic=False),
            r"frozen to batches of exactly 2; export it again with dynamic_shapes",
        ),
        (lambda at: exported(at, model=network().train()), r"exported in training mode \(aten\.batch_norm.default\)"),
        (
            lambda at: zipped(at, "model/data.pkl", "model/constants.pkl"),
            "not a TorchScript program that PyTorch .* can load",
        ),
        (lambda at: zipped(at, "model/archive_format"), "not a torch.export program that PyTorch .* can load"),
    ],
)
def test_a_program_that_cannot_serve_is_rejected(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(make(tmp_path), trust_pickle=True)


def test_a_pickled_network_without_its_code_says_so(tmp_path: Path) -> None:
    data = b"\x80\x02cno_such_module\nNet\n)\x81."
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/version", "3\n")
    with pytest.raises(CheckpointError, match=r"needs code that is not here \(No module named 'no_such_module'\); put"):
        read_checkpoint(tmp_path / "model.pth", trust_pickle=True)


def test_a_trusted_data_set_is_no_network(tmp_path: Path) -> None:
    path = saved(tmp_path, torch.utils.data.TensorDataset(PHOTOS))
    with pytest.raises(CheckpointError, match=f"holds a TensorDataset: {DATA}"):
        read_checkpoint(path, trust_pickle=True)


def test_data_beside_weights_does_no_harm(tmp_path: Path) -> None:
    assert same(read_checkpoint(saved(tmp_path, {"model": WEIGHTS, "data": PHOTOS})), WEIGHTS)


class Net(torch.nn.Linear):
    """Stands for a network that a script defines."""


@pytest.fixture(params=[True, False], ids=["zip", "older"])
def of_a_script(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network whose class is pickled as `__main__.Net`."""
    with monkeypatch.context() as script, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older format looks for the class's source
        script.setattr(Net, "__module__", "__main__")
        script.setattr(sys.modules["__main__"], "Net", Net, raising=False)
        return saved(tmp_path, Net(3, 2), _use_new_zipfile_serialization=request.param)


def test_a_network_of_a_script_needs_the_script(of_a_script: Path) -> None:
    with pytest.raises(CheckpointError, match=r"names __main__\.Net,.* --trust-pickle and --architecture FILE.py:Net"):
        read_checkpoint(of_a_script)
    with pytest.raises(CheckpointError, match=r"needs 'Net' of the script that saved it; pass .* FILE.py:Net, or save"):
        read_checkpoint(of_a_script, trust_pickle=True)
    other = types.ModuleType("other")
    other.__file__ = "other.py"
    with pytest.raises(CheckpointError, match=r"needs 'Net' .*, which other.py does not define; pass that script"):
        read_checkpoint(of_a_script, trust_pickle=True, script=lambda: other)


def test_a_network_of_a_script_is_read_with_it(of_a_script: Path) -> None:
    read = read_checkpoint(of_a_script, trust_pickle=True, script=lambda: sys.modules[__name__])
    assert type(read.module) is Net


def test_a_forbidden_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _mode: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    path = saved(tmp_path, WEIGHTS)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match="Permission denied; check the path and its permissions"):
        read_checkpoint(path)


def test_names_from_the_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(saved(tmp_path, {"\x1b[2J\n.x": torch.tensor([float("nan")])}))
    assert str(caught.value).isprintable()
    noted = read_checkpoint(saved(tmp_path, {**WEIGHTS, "\x1b[2J\n": 1}))
    assert all(note.isprintable() for note in noted.notes)


def test_the_digest_is_compared(tmp_path: Path) -> None:
    path = saved(tmp_path, WEIGHTS)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for spelled in (digest, digest.upper(), f"sha256:{digest}"):
        assert same(read_checkpoint(path, sha256=spelled), WEIGHTS)
    other = "0" * 64
    with pytest.raises(CheckpointError, match=rf"its SHA-256 is {digest}, not {other} as expected"):
        read_checkpoint(path, sha256=other)
    for malformed in ("", "abc", digest[:-1], digest + "0", "g" * 64):
        with pytest.raises(CheckpointError, match="is not 64 hexadecimal digits"):
            read_checkpoint(path, sha256=malformed)
