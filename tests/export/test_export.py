"""An export is verified, recorded and published whole, or refused with a sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig

from car_analyzer._cli.main import main as command_line
from car_analyzer_export.cli.export import main, read_spec
from car_analyzer_export.errors import CheckpointError, NetworkError, PublishError, SpecError, VerificationError
from car_analyzer_export.export import Export, export
from car_analyzer_export.onnx_model import graph
from car_analyzer_export.photo_folder import PhotoFolder
from car_analyzer_export.pictures import comparison_pixels
from car_analyzer_export.planning import plan_export
from car_analyzer_export.preprocess.photo import Photo
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.repository.config import config_texts
from car_analyzer_export.spec import Limits, Spec
from tests.conftest import PATIENCE_S, PINNED, decided, until

from .tiny_network import make_network

pytestmark = pytest.mark.triton


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def publish(spec: Spec, repository: Path, *, trust_pickle: bool = False, version: int | None = None) -> Export:
    return export(plan_export(spec, trust_pickle=trust_pickle), repository, version=version)


def changed(spec: Spec, **changes: Any) -> Spec:
    network = spec.networks["cleanliness"].model_copy(update=changes)
    return spec.model_copy(update={"networks": {"cleanliness": network}})


def test_the_model_says_what_pytorch_says(one_head: Spec, network_file: Path, tmp_path: Path) -> None:
    publish(one_head, tmp_path / "repository")
    folder = tmp_path / "repository" / "cleanliness" / "1"
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    network = make_network(network_file).eval()
    for batch in (1, 3, 32):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
        (logits,) = session.run(["logits"], {"pixels": pixels})
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.inference_mode():
            expected = network((images - mean[:, None, None]) / std[:, None, None])
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_record_says_what_was_compared(one_head: Spec, weights: Path, tmp_path: Path) -> None:
    publish(one_head, tmp_path / "repository")
    folder = tmp_path / "repository" / "cleanliness" / "1"
    record = json.loads((folder / "export.json").read_text())
    assert record["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["onnx"]["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert record["onnx"]["bytes"] == (folder / "model.onnx").stat().st_size
    assert record["onnx"]["opset"] == onnx.load(folder / "model.onnx").opset_import[0].version
    assert [batch["batch"] for batch in record["compared_with_pytorch"]["batches"]["cleanliness"]] == [1, 2, 7, 32]
    compared = record["compared_with_pytorch"]
    assert (compared["pictures"], compared["tolerance"]) == ("generated", 1e-4)
    assert compared["tolerances"]["cleanliness"]["basis"] == "absolute"
    assert record["versions"]["torch"] == torch.__version__


def test_the_model_names_no_path_of_this_machine(one_head: Spec, tmp_path: Path) -> None:
    publish(one_head, tmp_path / "repository")
    content = (tmp_path / "repository" / "cleanliness" / "1" / "model.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(tmp_path).encode() not in content


def test_versions_count_up_and_can_be_named(one_head: Spec, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert publish(one_head, repository).version == 1
    assert publish(one_head, repository).version == 2
    assert publish(one_head, repository, version=7).version == 7
    assert publish(one_head, repository).version == 8
    for model in ("cleanliness", "car_analyzer"):
        assert {path.name for path in (repository / model).iterdir() if path.is_dir()} == {"1", "2", "7", "8"}


def test_a_version_that_exists_is_refused(one_head: Spec, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(one_head, repository)
    before = tree(tmp_path)
    with pytest.raises(PublishError, match="has a version 1 already; leave out --version to get 2"):
        publish(one_head, repository, version=1)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("{file}:nothing", "no function or class 'nothing'"),
        ("{file}:broken", "RuntimeError: no such layer"),
        ("{file}:text", "returned a str, not a torch.nn.Module"),
        ("{file}:three", r"6.weight \(\(2, 4\) in the checkpoint, \(3, 4\) in the network\)"),
        ("{file}:two_at_once", "unknown to the network: 0.bias"),
        ("{folder}/nowhere.py:build", "does not exist"),
        ("no.such.module:build", "cannot be imported: ModuleNotFoundError"),
        ("build", "not of the form"),
        ("json:loads", "TypeError"),
    ],
)
def test_a_wrong_architecture_is_described(
    one_head: Spec, network_file: Path, tmp_path: Path, architecture: str, message: str
) -> None:
    named = architecture.format(file=network_file, folder=tmp_path)
    with pytest.raises(NetworkError, match=message):
        publish(changed(one_head, architecture=named), tmp_path / "repository")
    assert not tree(tmp_path / "repository")


def test_the_interpolation_that_a_checkpoint_names_is_used(one_head: Spec, network_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "named.pth"
    torch.save({"state_dict": make_network(network_file).state_dict(), "interpolation": "bicubic"}, file)
    (network,) = plan_export(changed(one_head, weights=file)).networks
    assert network.view.interpolation == "bicubic"
    assert any("interpolation bicubic is from" in note for note in network.notes)
    with pytest.raises(SpecError, match="the spec says interpolation nearest, but .* says bicubic"):
        plan_export(changed(one_head, weights=file, interpolation="nearest"))


def test_a_pickled_network_needs_trust(one_head: Spec, tmp_path: Path) -> None:
    file = tmp_path / "whole.pth"
    torch.save(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)), file)
    spec = changed(one_head, weights=file)
    with pytest.raises(CheckpointError, match=r"names torch\.nn\.modules\.container\.Sequential.*--trust-pickle"):
        publish(spec, tmp_path / "repository")
    assert publish(spec, tmp_path / "repository", trust_pickle=True).version == 1


def test_a_network_that_needs_a_fixed_batch_is_not_published(
    one_head: Spec, network_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "reshaping.pth"
    torch.save(make_network(network_file, "reshaping").state_dict(), file)
    with pytest.raises(NetworkError, match="fails on a batch of 1"):
        publish(changed(one_head, weights=file, architecture=f"{network_file}:reshaping"), tmp_path / "repository")
    assert not tree(tmp_path / "repository")


def test_a_model_that_disagrees_is_not_published(
    one_head: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is made with another mean than PyTorch's side is told: no label may hide that."""
    right = graph.PixelsToLogits
    other = {"mean": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(
        graph, "PixelsToLogits", lambda plan, **options: right(dataclasses.replace(plan, **other), **options)
    )
    with pytest.raises(VerificationError, match="Head 'cleanliness': At batch 1 ONNX Runtime and PyTorch differ by"):
        publish(one_head, tmp_path / "repository")
    assert not tree(tmp_path / "repository")


def write_spec(one_head: Spec, folder: Path) -> str:
    network = one_head.networks["cleanliness"]
    values = {"weights": network.weights, "architecture": network.architecture, **PINNED}
    lines = ["photo_size = 64", "[heads.cleanliness]", *(f'{key} = "{value}"' for key, value in values.items())]
    (folder / "spec.toml").write_text("\n".join(lines))
    return str(folder / "spec.toml")


def test_a_killed_export_leaves_the_repository_as_it_was(one_head: Spec, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(one_head, repository)
    before = tree(repository)
    (tmp_path / "plan").write_bytes(pickle.dumps(plan_export(one_head)))
    # It stops before its first network, with a folder beside the repository. To wait for the plan would take seconds.
    hold = (
        "import pickle, sys; from car_analyzer_export.network_process import NetworkProcess as P; "
        "from car_analyzer._cli.main import main; "
        f"P.plan = lambda _: pickle.load(open({str(tmp_path / 'plan')!r}, 'rb')); "
        "P.write = lambda *_: print('held', flush=True) or sys.stdin.read(); sys.exit(main())"
    )
    command = [sys.executable, "-c", hold, "export", write_spec(one_head, tmp_path), "--repository", str(repository)]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL):
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert any("held" in line for line in process.stdout)
            assert list(tmp_path.glob(".repository.export-*"))
            process.send_signal(number)
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert tree(repository) == before
        if number != signal.SIGKILL:
            assert process.returncode == 130
            assert errors.endswith("car-analyzer export: interrupted; nothing was published.\n")
            assert not list(tmp_path.glob(".repository.export-*"))
    # The next export removes the staging folder of a killed one.
    assert list(tmp_path.glob(".repository.export-*"))
    assert publish(one_head, repository).version == 2
    assert not list(tmp_path.glob(".repository.export-*"))


def test_a_failure_in_mid_publication_is_undone(
    one_head: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    publish(one_head, repository)
    before = tree(repository)
    rename = Path.rename

    def fail_on_the_last(self: Path, target: Path) -> Path:
        if target.parent.name == "cleanliness":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_last)
    head = one_head.heads["cleanliness"].model_copy(update={"labels": ("dirty", "clean")})
    other_labels = one_head.model_copy(update={"heads": {"cleanliness": head}})
    with pytest.raises(PublishError, match="No space left on device"):
        publish(other_labels, repository)
    assert tree(repository) == before
    assert not (repository / "car_analyzer" / "2").exists()


def test_a_repository_that_cannot_be_made_is_named(one_head: Spec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="file/repository cannot be written: Not a directory"):
        publish(one_head, tmp_path / "file" / "repository")


def test_two_exports_at_once_both_land(one_head: Spec, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "car_analyzer", "export", "--json", write_spec(one_head, tmp_path)]
    command += ["--repository", str(tmp_path / "repository")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: process.poll() is not None or list(tmp_path.glob(".repository.export-*")))
        here = publish(one_head, tmp_path / "repository").version
        there = json.loads(process.communicate()[0])["version"]
    assert sorted((here, there)) == [1, 2]


def test_turned_photos_are_noted_unless_exif_rotation_is_set(
    one_head: Spec, sample_photos: list[Path], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(sample_photos[0].parent, photos)
    (photos / "labels.csv").write_text("file,label\n")
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(sample_photos[0]) as photo:
        photo.save(photos / "turned.jpg", exif=turned)
    with_photos = one_head.model_copy(update={"photos": photos})
    (note,) = (note for note in plan_export(with_photos).networks[0].notes if "stored" in note)
    assert note.startswith(f"Head 'cleanliness': 1 of {len(sample_photos) + 1} photos in {photos} are stored sideways")
    assert "exif_rotation = true" in note
    upright = {name: network.model_copy(update={"exif_rotation": True}) for name, network in one_head.networks.items()}
    plan = plan_export(with_photos.model_copy(update={"networks": upright}))
    assert not any("stored" in note for note in plan.networks[0].notes)


def test_photos_are_used_where_there_are_some(one_head: Spec, sample_photos: list[Path]) -> None:
    view = View(64, 64)
    pixels = comparison_pixels(view, 32, PhotoFolder(sample_photos[0].parent, one_head.limits))
    np.testing.assert_array_equal(pixels[0], view.pixels(Photo(sample_photos[0].read_bytes()).rgb))
    assert len({picture.tobytes() for picture in pixels}) == 32
    assert len({picture.tobytes() for picture in comparison_pixels(view, 32, None)}) == 32


@pytest.mark.usefixtures("networks_here")
def test_the_command_publishes_and_reports(
    network_file: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("car_analyzer_export.cli.export.read_spec", lambda arguments: decided(read_spec(arguments)))
    flags = ["--cleanliness", str(weights), "--condition", str(weights), "--architecture", f"{network_file}:build"]
    flags += ["--condition-labels", "damaged, ok"]
    assert main([*flags, "--repository", str(tmp_path / "repository")]) == 0
    printed = capsys.readouterr().out
    assert "published as version 1 (export " in printed
    assert "a running one after `car-analyzer publish --version 1 --repository " in printed
    assert "is accepted for logits" not in printed
    assert (tmp_path / "repository" / "condition" / "1" / "model.onnx").is_file()
    assert (tmp_path / "repository" / "condition" / "1" / "labels.txt").read_text() == "damaged\nok\n"
    assert (tmp_path / "repository" / "cleanliness" / "1" / "labels.txt").read_text() == "clean\ndirty\n"


@pytest.mark.parametrize("command", ["export", "publish"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--condition-labels", "a,b"], "--condition-labels needs --condition"),
        (["--version", "4", "--condition-labels", "a,b"], "--condition-labels needs --condition"),
        (["a.toml", "--condition-labels", "a,b"], 'is not for a spec: write labels = ["a", "b"] in its head'),
        *((["--condition-labels", text], "is not two different labels") for text in ("a", "a,b,c", "a,a", "a, ", "")),
    ],
)
def test_labels_on_the_command_line(
    command: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line([command, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give a spec"),
        (["spec.toml", "--cleanliness", "a.pth"], 2, "not both"),
        (["--cleanliness", "a.pth", "--version", "0"], 2, "not a whole number from 1"),
        (["nowhere.toml"], 1, "nowhere.toml: No such file"),
        (["--cleanliness", "nowhere.pth"], 1, "Head 'cleanliness': nowhere.pth: No such file"),
        (["--cleanliness", "nowhere.pth", "--photos", "nowhere"], 1, "folder of photos nowhere does not exist"),
    ],
)
@pytest.mark.usefixtures("networks_here")
def test_the_command_says_what_is_wrong(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line(["export", *arguments]) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_nothing_depends_on_the_exporting_machine(one_head: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for cores in (2, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        spec = Spec.from_values(one_head.model_dump(), "test")
        texts.append(config_texts(plan_export(spec), 1, "an export"))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("limits", "count"), [({}, 0), ({"preprocess_instances": 5}, 5)])
def test_the_number_of_decoding_processes_is_left_open(one_head: Spec, limits: dict[str, int], count: int) -> None:
    plan = plan_export(one_head.model_copy(update={"limits": Limits(**limits)}))
    config = text_format.Parse(config_texts(plan, 1, "an export")["preprocess"], ModelConfig())
    assert [group.count for group in config.instance_group] == [count]
