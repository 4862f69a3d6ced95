"""Hostile checkpoints are rejected in a sentence, have no side effects, and take little memory and time."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from car_analyzer_export.checkpoints import read_checkpoint
from car_analyzer_export.errors import CheckpointError, NetworkError
from car_analyzer_export.network_process import NetworkProcess
from car_analyzer_export.spec import Spec

from . import archives, endless, hostile, json_beside, lying_tensors, pickles, programs, safetensors_headers
from .hostile import ATTACKS, LIVE, SAYS, STOPPING, WEIGHTS, Gadget

# Each adds its attacks to the table as it is imported.
assert all((archives, endless, json_beside, lying_tensors, pickles, programs, safetensors_headers))

MEMORY_MIB = 400
SECONDS = 60
READER = Path(__file__).with_name("reader.py")
READ_HERE = [name for name in ATTACKS if name not in STOPPING]


def make(name: str, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    canary = folder / "canary"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, sparse tensors are in beta, ...
        return ATTACKS[name](folder, canary), canary


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The outcome of reading each attack, in a process with little memory."""
    folder = tmp_path_factory.mktemp("attacks")
    files = {name: make(name, folder / name) for name in READ_HERE}
    paths = [str(path) for path, _ in files.values()]
    command = [sys.executable, str(READER), str(MEMORY_MIB), str(SECONDS), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * SECONDS, cwd=folder)
    # The last line for a path counts; if the process died on one, there is only the first.
    found = {line["path"]: line for line in map(json.loads, done.stdout.splitlines())}
    return {name: {**found.get(str(path), {}), "canary": canary.exists()} for name, (path, canary) in files.items()}


@pytest.mark.parametrize("name", READ_HERE)
def test_is_rejected(name: str, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[name]
    assert answer.get("outcome") == "CheckpointError", answer
    message = answer["message"]
    assert message.startswith(f"{answer['path']}: ")
    said = message.removeprefix(answer["path"])
    assert "\n" not in said
    assert SAYS[name] in said, said
    assert len(said) < 400, said
    assert said.endswith(".")
    assert not answer["canary"]
    # Alone it would take one second at most, of the 60 that all have.
    assert answer["seconds"] < 10, answer


@pytest.mark.parametrize("name", sorted(STOPPING))
def test_the_commands_survive_what_stops_the_reader(name: str, tmp_path: Path) -> None:
    path, canary = make(name, tmp_path)
    spec = Spec.from_values({"heads": {"cleanliness": {"weights": path}}}, "test")
    with (
        NetworkProcess(spec, trust_pickle=False, progress=lambda _step: None, step_timeout=STOPPING[name]) as process,
        pytest.raises(NetworkError) as caught,
    ):
        process.plan()
    said = str(caught.value)
    assert said.startswith("Head 'cleanliness': ")
    assert SAYS[name] in said, said
    assert not canary.exists()


@pytest.mark.parametrize("name", sorted(LIVE))
def test_would_have_run(name: str, tmp_path: Path) -> None:
    """The attack is real: loaded carelessly, the same file writes the canary."""
    path, canary = make(name, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # only its side effect counts
            if zipfile.is_zipfile(path) and path.suffix == ".pt2":
                torch.export.load(io.BytesIO(path.read_bytes()))
            elif path.read_bytes().startswith((b"PK", hostile.LEGACY_MAGIC)):
                torch.load(path, weights_only=False)
            else:
                pickle.loads(path.read_bytes())
    assert canary.exists()


@pytest.mark.parametrize(
    ("name", "runs"), [("torchscript_writes_when_loaded", False), ("torchscript_writes_when_run", True)]
)
def test_torchscript_would_have_written(name: str, runs: bool, tmp_path: Path) -> None:
    """Why TorchScript needs to be trusted."""
    path, canary = make(name, tmp_path)
    canary.unlink(missing_ok=True)  # creating the one that acts at load runs it already
    network = read_checkpoint_trusted_weightless(path)
    if runs:
        assert not canary.exists()
        network(torch.zeros(1))
    assert canary.exists()


def read_checkpoint_trusted_weightless(path: Path) -> Any:
    """Without weights, read_checkpoint would reject these networks after loading them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))


def test_trust_is_what_makes_the_difference(tmp_path: Path) -> None:
    path, canary = make("code_beside_good_weights", tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"names \w+\.system, which is no part of plain weights and can run code .* --trust-pickle",
    ):
        read_checkpoint(path)
    assert not canary.exists()
    assert read_checkpoint(path, trust_pickle=True).weights is not None
    assert canary.exists()


@pytest.mark.parametrize("name", ["reduce_in_zip", "newobj", "build_setstate", "reduce_in_legacy", "plain_pickle"])
def test_neither_the_environment_nor_the_process_can_trust(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch lets both extend what it loads; the list here stays the same."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, canary = make(name, tmp_path)
    with torch.serialization.safe_globals([Gadget, os.system]), pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["path_upwards", "symlink", "two_pickles_of_one_name", "zip_bomb", "encrypted"])
def test_trust_does_not_open_a_crafted_archive(name: str, tmp_path: Path) -> None:
    path, canary = make(name, tmp_path)
    with pytest.raises(CheckpointError):
        read_checkpoint(path, trust_pickle=True)
    assert not canary.exists()


def test_compiled_code_is_rejected_even_if_trusted(tmp_path: Path) -> None:
    path, _ = make("export_with_compiled_code", tmp_path)
    with pytest.raises(CheckpointError, match="compiled code"):
        read_checkpoint(path, trust_pickle=True)


def test_crafted_metadata_stays_inert(tmp_path: Path) -> None:
    """A numpy dtype with crafted flags would confuse numpy's C code; it never gets there."""
    state = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    dtype = b"cnumpy\ndtype\n" + hostile.text("f8") + b"\x89\x88\x87R" + state
    scalar = b"cnumpy.core.multiarray\nscalar\n" + dtype + hostile.text("no bytes") + b"\x86R"
    shadow = b"ccollections\nOrderedDict\n)R}" + hostile.text("items") + b"ccollections\nOrderedDict\nsb"
    weights = hostile.pickled({"fc.weight": hostile.tensor((4,), (1,))})[2:-1]
    data = hostile.PROTO + b"}(" + hostile.text("state_dict") + weights
    data += hostile.text("threshold") + scalar + hostile.text("args") + shadow + b"u" + hostile.STOP
    # Memo numbers of the nested pickle do not matter: nothing else here uses the memo.
    checkpoint = read_checkpoint(hostile.torch_zip(tmp_path, data))
    assert checkpoint.weights is not None
    assert list(checkpoint.weights) == ["fc.weight"]
    assert checkpoint.facts.threshold is None


def test_the_good_file_behind_the_attacks_is_read(tmp_path: Path) -> None:
    """So the attacks are rejected for what was changed."""
    path = hostile.write_zip(tmp_path / "a.pth", hostile.good_records(tmp_path))
    weights = read_checkpoint(path).weights
    assert weights is not None
    assert all(torch.equal(weights[name], tensor) for name, tensor in WEIGHTS.items())
    claims = hostile.pickled({"fc.weight": hostile.tensor((2, 2), (2, 1))})
    assert read_checkpoint(hostile.torch_zip(tmp_path, claims)).weights is not None
    expanded = hostile.pickled({"fc.weight": hostile.tensor((1000,), (0,))})
    assert read_checkpoint(hostile.torch_zip(tmp_path, expanded)).weights is not None
    legacy = hostile.pickled({"fc.weight": hostile.tensor((4,), (1,))}, hostile.LegacyClaiming)
    content = (4).to_bytes(8, "little") + bytes(16)
    path = hostile.legacy(tmp_path, legacy, keys=pickle.dumps(["0"], 2), after=content)
    assert read_checkpoint(path).weights is not None
