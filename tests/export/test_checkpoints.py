"""Any ordinary checkpoint is read, with what it says about itself; what is none is refused with a sentence."""

from __future__ import annotations

import argparse
import bz2
import collections
import datetime
import gzip
import hashlib
import io
import json
import lzma
import pathlib
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

from car_analyzer_export.checkpoints import Checkpoint, Facts, read_checkpoint, reconcile
from car_analyzer_export.errors import CheckpointError, SpecError


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
    """Values that the weights-only unpickler refuses by itself, or that need care."""
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


@pytest.fixture(autouse=True)
def _quiet_while_writing() -> Any:
    """TorchScript warns of its end when it is written; reading must do so quietly by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*torch\.jit\.", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"(?s).*(TypedStorage|quantized|torch\.ao)")
        yield


# --- containers -------------------------------------------------------------------------------------------------------

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


def same(checkpoint: Checkpoint, weights: dict[str, torch.Tensor]) -> bool:
    assert checkpoint.weights is not None
    assert checkpoint.weights.keys() == weights.keys()
    assert all(type(tensor) is torch.Tensor and tensor.device.type == "cpu" for tensor in checkpoint.weights.values())
    return all(
        tensor.dtype == weights[name].dtype and torch.equal(tensor, weights[name])
        for name, tensor in checkpoint.weights.items()
    )


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
        CheckpointError, match=r"refused, because it .*; save network\.state_dict\(\).*--trust-pickle if"
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
    assert checkpoint.notes == ("Holds several sets of weights (model, ema); 'model' was taken.",)
    alone = read_checkpoint(saved(tmp_path, training("ema_state_dict")))
    assert alone.notes == ("Only averaged weights ('ema_state_dict') are there; they were taken.",)


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


# --- refusals ---------------------------------------------------------------------------------------------------------


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
        lambda at: cut(saved(at, WEIGHTS), 0.5),
        "not a checkpoint that PyTorch can read: its zip archive is cut",
    ),
    "half a legacy": (
        lambda at: cut(saved(at, WEIGHTS, _use_new_zipfile_serialization=False), 0.3),
        "not a checkpoint that PyTorch can read: its pickle is cut short",
    ),
    "legacy without its end": (
        lambda at: cut(saved(at, WEIGHTS, _use_new_zipfile_serialization=False), 0.97),
        "not a checkpoint that PyTorch can read: its tensors take",
    ),
    "half a safetensors": (lambda at: cut(safetensors(at), 0.9), "not a safetensors file that can be read"),
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
        "is a zip archive, but not one that torch.save wrote",
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
    "npy": (lambda at: numpy_file(at, archive=False), r"is a NumPy array \(\.npy\)"),
    "npz": (lambda at: numpy_file(at, archive=True), r"is a NumPy archive \(\.npz\)"),
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
    "tensor": (lambda at: saved(at, torch.ones(3)), "holds a Tensor, not a state_dict"),
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
        "holds quantised weights, which cannot be exported; save network.state_dict",
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
def test_what_is_no_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
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
def test_a_program_that_cannot_serve_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(make(tmp_path), trust_pickle=True)


def test_a_pickled_network_without_its_code_says_so(tmp_path: Path) -> None:
    data = b"\x80\x02cno_such_module\nNet\n)\x81."
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/version", "3\n")
    with pytest.raises(CheckpointError, match=r"needs code that is not here \(No module named 'no_such_module'\); put"):
        read_checkpoint(tmp_path / "model.pth", trust_pickle=True)


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
    with pytest.raises(CheckpointError, match=rf"its SHA-256 is {digest}, not {other} as was asked for"):
        read_checkpoint(path, sha256=other)
    for malformed in ("", "abc", digest[:-1], digest + "0", "g" * 64):
        with pytest.raises(CheckpointError, match="is not 64 hexadecimal digits"):
            read_checkpoint(path, sha256=malformed)


# --- facts ------------------------------------------------------------------------------------------------------------


def facts_of(folder: Path, **entries: Any) -> Checkpoint:
    return read_checkpoint(saved(folder, {"state_dict": WEIGHTS, **entries}))


@pytest.mark.parametrize(
    "entries",
    [
        {"class_to_idx": {"dirty": 1, "clean": 0}},
        {"idx_to_class": {1: "dirty", 0: "clean"}},
        {"idx_to_class": {"0": "clean", "1": "dirty"}},
        {"classes": ["clean", "dirty"]},
        {"classes": CLEAN},
        {"class_names": ("clean", "dirty")},
        {"labels": np.array(["clean", "dirty"])},
        {"names": {0: " clean ", 1: "dirty"}},
        {"hyper_parameters": {"class_names": ["clean", "dirty"]}},
        {"args": argparse.Namespace(classes=["clean", "dirty"])},
        {"meta": {"dataset": {"id2label": {"0": "clean", "1": "dirty"}}}},
    ],
)
def test_labels_are_found_in_logit_order(entries: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, **entries)
    assert checkpoint.facts.labels == ("clean", "dirty")
    assert checkpoint.facts.sources["labels"].startswith("its checkpoint's '")
    assert not checkpoint.notes


@pytest.mark.parametrize(
    ("entries", "fact", "value", "source"),
    [
        ({"arch": "resnet18"}, "arch", "resnet18", "arch"),
        ({"model": "efficientnet_b0"}, "arch", "efficientnet_b0", "model"),
        ({"hparams": {"backbone": "resnet50.a1_in1k"}}, "arch", "resnet50.a1_in1k", "hparams.backbone"),
        ({"img_size": 224}, "image_size", (224, 224), "img_size"),
        ({"image_size": [240, 320]}, "image_size", (320, 240), "image_size"),
        ({"config": {"input_size": (3, 240, 320)}}, "image_size", (320, 240), "config.input_size"),
        ({"preprocess": {"size": {"height": 240, "width": 320}}}, "image_size", (320, 240), "preprocess.size"),
        ({"mean": [0.5, 0.4, 0.3]}, "mean", (0.5, 0.4, 0.3), "mean"),
        ({"normalize": {"std": np.array([0.5, 0.4, 0.3])}}, "std", (0.5, 0.4, 0.3), "normalize.std"),
        (
            {"transform": {"interpolation": "InterpolationMode.BICUBIC"}},
            "resize_mode",
            "bicubic",
            "transform.interpolation",
        ),
        ({"best_threshold": np.float64(0.25)}, "threshold", 0.25, "best_threshold"),
    ],
)
def test_other_facts_are_found(entries: dict[str, Any], fact: str, value: Any, source: str, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **entries).facts
    assert getattr(facts, fact) == value
    assert facts.sources == {fact: f"its checkpoint's '{source}'"}


def test_a_scale_of_255_is_brought_to_1(tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, mean=[127.5, 102, 51], std=[51, 51, 51])
    assert checkpoint.facts.mean == (0.5, 0.4, 0.2)
    assert checkpoint.facts.std == (0.2, 0.2, 0.2)
    assert "were divided by 255" in checkpoint.notes[0]
    assert facts_of(tmp_path, mean=[127.5, 102, 51]).facts.mean is None


@pytest.mark.parametrize(
    "entries",
    [
        {"class_to_idx": {"clean": 0, "dirty": 2}},
        {"class_to_idx": {"clean": 0, "dirty": 0}},
        {"class_to_idx": {"clean": 0.5, "dirty": 1}},
        {"idx_to_class": {"zero": "clean", "one": "dirty"}},
        {"classes": ["clean"]},
        {"classes": [0, 1]},
        {"classes": ["clean", "Clean"]},
        {"classes": ["clean", "\x1b[2J"]},
        {"classes": ["", "dirty"]},
        {"labels": torch.tensor([0, 1, 1]).tolist()},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}},
        {"img_size": -1},
        {"img_size": "large"},
        {"img_size": [1, 2, 3, 4]},
        {"mean": 0.5},
        {"mean": [0.5, float("nan"), 0.5]},
        {"mean": [-0.5, 0.5, 0.5]},
        {"std": [0.2, 0.2, 0]},
        {"std": ["a", "b", "c"]},
        {"threshold": 3},
        {"threshold": "high"},
        {"arch": "rm -rf /; "},
    ],
)
def test_garbage_is_ignored_with_a_note(entries: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, **entries)
    assert checkpoint.facts == Facts()
    assert len(checkpoint.notes) == 1
    assert checkpoint.notes[0].startswith(f"Ignored its checkpoint's '{next(iter(entries))}': ")


def test_what_is_no_fact_is_passed_over(tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, classes=2, labels="labels.txt", threshold=[0.1, 0.2], interpolation=2)
    assert checkpoint.facts == Facts()
    assert not checkpoint.notes


def test_two_orders_in_one_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="'class_to_idx' says clean, dirty, .*'args.classes' says dirty, clean; cor"
    ):
        facts_of(tmp_path, class_to_idx=CLEAN, args={"classes": ["dirty", "clean"]})


def test_safetensors_metadata_is_read(tmp_path: Path) -> None:
    more = {"mean": "[0.5, 0.5, 0.5]", "arch": "resnet18", "img_size": "96"}
    facts = read_checkpoint(safetensors(tmp_path, class_to_idx=json.dumps(CLEAN), **more)).facts
    assert facts.labels == ("clean", "dirty")
    assert (facts.mean, facts.arch, facts.image_size) == ((0.5, 0.5, 0.5), "resnet18", (96, 96))
    assert facts.sources["labels"] == "its metadata's 'class_to_idx'"
    foreign = read_checkpoint(safetensors(tmp_path, format="tf"))
    assert "written for 'tf'" in foreign.notes[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.json", {"classes": ["clean", "dirty"]}),
        ("model.pth.json", {"class_to_idx": CLEAN}),
        ("model_classes.json", ["clean", "dirty"]),
        ("model.labels.json", {"0": "clean", "1": "dirty"}),
        ("classes.json", ["clean", "dirty"]),
        ("class_to_idx.json", CLEAN),
        ("idx_to_class.json", {"0": "clean", "1": "dirty"}),
        ("labels.json", ["clean", "dirty"]),
        ("config.json", {"id2label": {"0": "clean", "1": "dirty"}}),
    ],
)
def test_labels_are_found_beside_the_file(name: str, content: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    facts = read_checkpoint(saved(tmp_path, WEIGHTS)).facts
    assert facts.labels == ("clean", "dirty")
    assert facts.sources["labels"].startswith(f"{name}'s '")


def test_files_of_a_shared_folder_belong_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(["damaged", "intact"]))
    (tmp_path / "condition_model_classes.json").write_text(json.dumps(["intact", "damaged"]))
    saved(tmp_path, WEIGHTS, "condition_model.pth")
    cleanliness = read_checkpoint(saved(tmp_path, WEIGHTS, "cleanliness_model.pth"))
    assert cleanliness.facts == Facts()
    assert "Ignored classes.json: its folder holds several checkpoints" in cleanliness.notes[0]
    assert read_checkpoint(tmp_path / "condition_model.pth").facts.labels == ("intact", "damaged")


@pytest.mark.parametrize(
    ("beside", "entries", "message"),
    [
        (
            ["dirty", "clean"],
            {"class_to_idx": CLEAN},
            "contradicts itself about labels: its checkpoint's .* model.json's",
        ),
        (
            {"img_size": 256},
            {"img_size": 224},
            "contradicts itself about image size: .* says 224, 224, .* says 256, 256",
        ),
        ({"mean": [0.5, 0.5, 0.5]}, {"mean": [0.485, 0.456, 0.406]}, "contradicts itself about mean"),
        ({"arch": "resnet50"}, {"arch": "vgg16"}, "contradicts itself about arch"),
    ],
)
def test_a_contradiction_with_the_file_beside_is_refused(
    beside: Any, entries: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_text(json.dumps(beside))
    with pytest.raises(CheckpointError, match=message):
        facts_of(tmp_path, **entries)


def test_agreement_is_no_contradiction(tmp_path: Path) -> None:
    beside = {"classes": ["Clean ", "DIRTY"], "arch": "ResNet-18", "mean": [0.4850001, 0.456, 0.406]}
    (tmp_path / "model.json").write_text(json.dumps(beside))
    facts = facts_of(tmp_path, class_to_idx=CLEAN, arch="resnet18", mean=[0.485, 0.456, 0.406]).facts
    assert facts.labels == ("clean", "dirty")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"threshold": NaN}'])
def test_a_broken_file_beside_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the file model\.json beside it is not valid JSON"):
        facts_of(tmp_path)


# --- spec and facts ---------------------------------------------------------------------------------------------------


def facts(**values: Any) -> Facts:
    return Facts(**values, sources=dict.fromkeys(values, "its checkpoint's 'x'"))


def test_the_spec_alone_is_enough() -> None:
    effective = reconcile("tires", Facts(), labels=["flat", "round"], mean=[0.5] * 3, std=[0.5] * 3, arch="a.py:b")
    assert effective.labels == ("flat", "round")
    assert (effective.mean, effective.std, effective.arch) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "a.py:b")
    assert effective.image_size is None
    assert not effective.notes


def test_the_checkpoint_alone_is_believed_and_named() -> None:
    effective = reconcile("tires", facts(labels=("flat", "round"), image_size=(96, 64), arch="resnet18"))
    assert (effective.labels, effective.image_size, effective.arch) == (("flat", "round"), (96, 64), "resnet18")
    assert all("its checkpoint's 'x'" in note for note in effective.notes)
    assert len(effective.notes) == 3


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (["clean", "dirty"], ("dirty", "clean")),
        (["Clean", "Dirty "], ("dirty", " clean")),
        (["intact", "damaged"], ("00-damage", "01-whole")),
        (["intact", "damaged"], ("damaged_car", "intact_car")),
        (["clean", "dirty"], ("clean", "dirty", "unknown")),
    ],
)
def test_contradicting_labels_are_refused(said: list[str], found: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        reconcile("cleanliness", facts(labels=found), labels=said)
    assert f"the spec says labels {', '.join(said)}, but its checkpoint's 'x' says {', '.join(found)}" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("said", "found", "renames"),
    [
        (["clean", "dirty"], ("Clean", " DIRTY "), False),
        (["damaged", "intact"], ("00-damage", "01-whole"), True),
        (["clean", "unclean"], ("clean", "dirty"), True),
        (["sauber", "schmutzig"], ("clean", "dirty"), True),
    ],
)
def test_the_spec_may_rename(said: list[str], found: tuple[str, ...], renames: bool) -> None:
    effective = reconcile("cleanliness", facts(labels=found), labels=said)
    assert effective.labels == tuple(said)
    assert bool(effective.notes) == renames
    if renames:
        assert f"'{found[1]}' is called '{said[1]}'" in effective.notes[0]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"mean": [0.5, 0.5, 0.5]}, {"mean": (0.485, 0.456, 0.406)}),
        ({"std": [0.5, 0.5, 0.5]}, {"std": (0.229, 0.224, 0.225)}),
        ({"image_size": (224, 224)}, {"image_size": (256, 256)}),
        ({"arch": "resnet50"}, {"arch": "resnet18"}),
    ],
)
def test_other_contradictions_are_refused(said: dict[str, Any], found: dict[str, Any]) -> None:
    name = next(iter(said)).replace("_", " ")
    with pytest.raises(
        SpecError, match=rf"Head 'condition': the spec says {name} .*, but its checkpoint's 'x' says .*; cor"
    ):
        reconcile("condition", facts(**found), labels=["intact", "damaged"], **said)


def test_a_factory_of_ones_own_contradicts_nothing() -> None:
    effective = reconcile("condition", facts(arch="resnet18"), labels=["intact", "damaged"], arch="network.py:build")
    assert effective.arch == "network.py:build"


def test_the_well_known_heads_have_labels_and_a_warning() -> None:
    condition = reconcile("condition", Facts())
    assert condition.labels == ("intact", "damaged")
    assert "gives damaged, intact, the other way round. Run `car-analyzer check FOLDER`" in condition.notes[0]
    cleanliness = reconcile("cleanliness", Facts())
    assert cleanliness.labels == ("clean", "dirty")
    assert "gives clean, dirty too. Run `car-analyzer check FOLDER`" in cleanliness.notes[0]


def test_any_other_head_needs_labels() -> None:
    with pytest.raises(
        SpecError, match="Head 'tires' has no labels, and its checkpoint names none; list them in the spec"
    ):
        reconcile("tires", Facts())


def test_swapped_checkpoints_are_noticed() -> None:
    with pytest.raises(SpecError, match="as 'condition' would; are the two checkpoints swapped"):
        reconcile("cleanliness", facts(labels=("Damaged", "Intact")))
