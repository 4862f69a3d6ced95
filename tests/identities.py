"""Exports that are all of version 1 and differ in what they say, each with a Triton of its own."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from car_analyzer import Analysis

NETWORK = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
"""
SPEC = """
[heads.{head}]
weights = "weights.pth"
architecture = "network.py:build"
labels = {labels}
decoding = "scaled"
resampling = "exact"

[limits]
preprocess_instances = 1
"""


@dataclass(frozen=True)
class Served:
    """A Triton of its own, and what it says of every photo: its network always gives the same logits."""

    grpc_url: str
    http_url: str
    head: str
    label: str
    logits: tuple[float, ...]

    def url(self, protocol: str) -> str:
        return self.grpc_url if protocol == "grpc" else self.http_url

    def port(self, protocol: str) -> int:
        return urlsplit(self.url(protocol)).port or 0

    def gave(self, analysis: Analysis) -> bool:
        """Whether these are its logits; if so, its labels must be there, too."""
        ((head, answer),) = analysis.heads.items()
        if answer.logits != self.logits:
            return False
        assert (head, answer.label) == (self.head, self.label)
        return True


def export_constant(folder: Path, head: str, labels: list[str], logits: tuple[float, float]) -> Path:
    """Exports a network that says the same of every photo, as version 1."""
    folder.mkdir()
    (folder / "network.py").write_text(NETWORK)
    torch.save({"2.weight": torch.zeros(2, 3), "2.bias": torch.tensor(logits)}, folder / "weights.pth")
    (folder / "spec.toml").write_text(SPEC.format(head=head, labels=json.dumps(labels)))
    export(plan_export(Spec.from_file(folder / "spec.toml")), folder / "model_repository")
    return folder / "model_repository"


def make_legacy(repository: Path) -> Path:
    """Makes a repository answer as one of car-analyzer 0.1, which has no identity and does not look for one."""
    file = repository / "car_analyzer" / "config.pbtxt"
    config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    del config.parameters["export_id"]
    file.write_text(text_format.MessageToString(config))
    step = repository / "preprocess" / "1"
    (step / "export.json").unlink()
    (step / "identity.py").write_text("read = str\n\n\ndef rejection(*_):\n    return None\n")
    return repository


YES_NO, NO_YES = ["yes", "no"], ["no", "yes"]
# Name → head, labels, logits, and whether it is of car-analyzer 0.1.
EXPORTS: dict[str, tuple[str, list[str], tuple[float, float], bool]] = {
    "first": ("condition", YES_NO, (2.0, 0.0), False),
    "swapped": ("condition", NO_YES, (3.0, 0.0), False),
    "other-heads": ("tires", YES_NO, (4.0, 0.0), False),
    "legacy": ("condition", NO_YES, (5.0, 0.0), True),
    "legacy-swapped": ("condition", YES_NO, (6.0, 0.0), True),
}


class Tritons(dict[str, Served]):
    """A Triton for each export, started when it is first asked for; all of version 1."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__()
        self._folder = folder
        self._stack = stack

    def __missing__(self, name: str) -> Served:
        head, labels, logits, is_legacy = EXPORTS[name]
        repository = export_constant(self._folder / name, head, labels, logits)
        if is_legacy:
            make_legacy(repository)
        server = self._stack.enter_context(Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)))
        self[name] = Served(server.grpc_url, server.http_url, head, labels[0], logits)
        return self[name]


@pytest.fixture(scope="module")
def tritons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tritons]:
    """A Triton for each export that a test asks for."""
    with contextlib.ExitStack() as stack:
        yield Tritons(tmp_path_factory.mktemp("exports"), stack)
