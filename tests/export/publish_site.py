"""A running Triton, and the networks of which versions are made for it."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2 as pb

from car_analyzer import TLS
from car_analyzer.config import Endpoint
from car_analyzer_export.cli import calibrate, publish, rollback
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.repository import versions
from car_analyzer_export.repository.publishing.control import Triton
from car_analyzer_export.repository.publishing.reference_check import read_references
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server
from car_analyzer_server.repository import check_repository
from reliability.publishing import VersionAnswer, VersionedPhoto

from .tiny_network import make_network

KEY = "a-key-for-the-tests-only"
HEADS = {"cleanliness": ["clean", "dirty"], "condition": ["intact", "damaged"]}
OTHER_WORDS = {"cleanliness": ["sauber", "schmutzig"], "condition": ["heil", "kaputt"]}


@dataclass
class Site:
    """A Triton on a repository of tiny networks, and what is needed to change what it serves."""

    folder: Path
    repository: Path
    server: Server
    capture: pytest.CaptureFixture[str] | None = None

    def spec(self, seed: int, labels: dict[str, list[str]] = HEADS, **values: Any) -> Path:
        """Networks with weights of their own, and a spec for them."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in ({"photo_size": 64} | values).items()]
        for index, (head, words) in enumerate(labels.items()):
            network = make_network(self.folder / "network.py")
            generator = torch.Generator().manual_seed(10 * seed + index)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
            torch.save(network.state_dict(), self.folder / f"{head}{seed}.pth")
            lines += [f"[heads.{head}]", f'weights = "{head}{seed}.pth"', 'architecture = "network.py:build"']
            lines += [f"labels = {json.dumps(words)}", 'decoding = "scaled"', 'resampling = "exact"']
        file = self.folder / f"spec{seed}.toml"
        file.write_text("\n".join(lines))
        return file

    def place(self, seed: int, **values: Any) -> int:
        """Exports a version that nothing serves."""
        plan = plan_export(Spec.from_file(self.spec(seed, **values)))
        return export(plan, self.repository, deliver=lambda _repository, _version: None).version

    def again(self) -> int:
        """The first version once more, as another one; much faster than an export."""
        new = max(versions.exported(self.repository / "car_analyzer")) + 1
        for model in ("preprocess", "cleanliness", "condition", "car_analyzer"):
            shutil.copytree(self.repository / model / "1", self.repository / model / str(new))
        for file in self.repository.glob(f"car_analyzer/{new}/configs/*"):
            text = re.sub(r"(versions|model_version): 1\b", rf"\1: {new}", file.read_text())
            file.write_text(text.replace('label_filename: "1/', f'label_filename: "{new}/'))
        (self.repository / "car_analyzer" / str(new) / "served.json").unlink(missing_ok=True)
        return new

    def run(self, command: str, *arguments: object, url: str | None = None, key: str = KEY) -> tuple[int, str]:
        """Runs a command; its exit code and what it printed."""
        (self.folder / "key").write_text(key)
        flags = ["--repository", self.repository, "--url", url or self.server.grpc_url]
        flags += ["--admin-key-file", self.folder / "key"] if key else []
        main = {"publish": publish.main, "rollback": rollback.main, "calibrate": calibrate.main}[command]
        code = main([str(argument) for argument in (*flags, *arguments)])
        assert self.capture is not None
        printed = self.capture.readouterr()
        return code, printed.out + printed.err

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        """Runs a command in a process of its own, after some code."""
        (self.folder / "key").write_text(KEY)
        flags = ["--repository", self.repository, "--url", self.server.grpc_url]
        flags += ["--admin-key-file", self.folder / "key"]
        script = f"{code}\nimport sys\nfrom car_analyzer._cli.main import main\nsys.exit(main(sys.argv[1:]))"
        return subprocess.Popen(
            [sys.executable, "-c", script, *map(str, (*arguments, *flags))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start_again(self) -> int | None:
        """Starts Triton if it died; the exit code of the one that did. Nothing supervises it as `serve` would."""
        if (code := self.server.wait(0)) is not None:
            self.server.stop(at_once=True)
            self.server.start()
        return code

    def triton(self) -> Triton:
        return Triton(Endpoint.parse(self.server.grpc_url), KEY, TLS())

    def served(self) -> int:
        """The version that answers, which must be whole."""
        with self.triton() as triton:
            version = triton.served()
            assert version is not None
            read_references(self.repository, version).check(triton, "car_analyzer")
        return version

    def loaded(self) -> dict[str, set[int]]:
        with self.triton() as triton:
            models = ("car_analyzer", "preprocess", "cleanliness", "condition", "tires")
            states = {model: triton.versions(model) for model in models}
        return {model: {v for v, state in found.items() if state == "READY"} for model, found in states.items()}

    def on_disk(self) -> int:
        """The version that a Triton would serve that starts now; the repository must be in order for it."""
        check_repository(self.repository)
        ensemble = config(self.repository, "car_analyzer")
        (version,) = ensemble.version_policy.specific.versions
        for step in ensemble.ensemble_scheduling.step:
            assert step.model_version == version
            named = config(self.repository, step.model_name).version_policy.specific.versions
            assert version in named
            assert all((self.repository / step.model_name / str(one)).is_dir() for one in named)
        return version


def config(repository: Path, model: str) -> Any:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), pb.ModelConfig())


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def versioned_photos(site: Site, versions_: dict[int, tuple[int, dict[str, list[str]]]]) -> list[VersionedPhoto]:
    """Photos with PyTorch's answers: version → the seed of its networks, and its labels."""
    found = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        answers = {
            version: VersionAnswer(reference(site, seed, picture), labels)
            for version, (seed, labels) in versions_.items()
        }
        found.append(VersionedPhoto(f"photo {number}", buffer.getvalue(), {}, answers))
    return found


def reference(site: Site, seed: int, picture: Image.Image) -> dict[str, list[float]]:
    """PyTorch's logits, by the recipe of the training."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = np.array(picture.resize((64, 64), Image.Resampling.BILINEAR))
    tensor = torch.from_numpy(pixels).float().div(255).sub(mean).div(std).permute(2, 0, 1)[None]
    logits = {}
    for head in HEADS:
        network = make_network(site.folder / "network.py").eval()
        network.load_state_dict(torch.load(site.folder / f"{head}{seed}.pth", weights_only=True))
        with torch.inference_mode():
            logits[head] = network(tensor)[0].tolist()
    return logits
