"""Networks are foreign code: the exporter accepts what PyTorch accepts, and none of them can crash it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest
import torch

from car_analyzer_export.cli.export import main
from car_analyzer_export.errors import ExportError, NetworkError
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from tests.conftest import PINNED

from .checkpoint_files import QUIET_WHILE_WRITING
from .tiny_network import make_network

pytestmark = [pytest.mark.triton, *QUIET_WHILE_WRITING]

NETWORKS = '''
import os
import pathlib
import signal
import time

import torch


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, stride=16)
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, images):
        return self.linear(self.convolution(images).mean((2, 3)))


class Viewing(Pooled):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4 * 4 * 4, 2)

    def forward(self, images):
        features = self.convolution(images)
        return self.linear(features.view(features.size(0), -1))


class Deciding(Pooled):
    def forward(self, images):
        if images.mean() > 0:
            images = 2 * images
        return super().forward(images)


class Sorting(Pooled):
    def forward(self, images):
        return super().forward(images) + torch.linalg.svdvals(images.mean(1))[:, :2]


class UpToFive(Pooled):
    def forward(self, images):
        if len(images) > 5:
            raise ValueError("at most five photos.\\nNot more.")
        return super().forward(images)


class Assigning(Pooled):
    """Its export ends in a segmentation fault of PyTorch 2.13."""

    def forward(self, images):
        self.linear.weight.data = self.linear.weight.data * 1.0
        return super().forward(images)


class Crashing(Pooled):
    def forward(self, images):
        if torch.compiler.is_exporting():
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().forward(images)


class Leaving(Pooled):
    def forward(self, images):
        os._exit(0)


class Endless(Pooled):
    def forward(self, images):
        if torch.compiler.is_exporting():
            pathlib.Path(__file__).with_name("running").write_text(str(os.getpid()))
            while True:
                time.sleep(1)
        return super().forward(images)


class Talking(Pooled):
    def forward(self, images):
        print("a network says hello")
        return super().forward(images)
'''


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    return file


def head(networks: Path, name: str) -> dict[str, Any]:
    weights = networks.with_name(f"{name}.pth")
    torch.save(make_network(networks, name).state_dict(), weights)
    return {"weights": weights, "architecture": f"{networks}:{name}"}


def traced(networks: Path, name: str) -> Path:
    file = networks.with_name(f"{name}.pt")
    torch.jit.save(torch.jit.trace(make_network(networks, name).eval(), torch.zeros(2, 3, 64, 64)), file)
    return file


def flags(networks: Path, name: str) -> list[str]:
    given = head(networks, name)
    spec = networks.with_name(f"{name}.toml")
    lines = [
        "photo_size = 64",
        "[heads.cleanliness]",
        *(f"{key} = {json.dumps(str(value))}" for key, value in (PINNED | given).items()),
    ]
    spec.write_text("\n".join(lines))
    return [str(spec), "--repository", str(networks.parent / "repository")]


def one_head_of(head: dict[str, Any], **values: Any) -> Spec:
    return Spec.from_values({"heads": {"cleanliness": PINNED | head}, "photo_size": 64} | values, "test")


@pytest.mark.parametrize("target", ["any", "tensorrt"])
@pytest.mark.parametrize(("kind", "channels"), [("weights", "RGB"), ("weights", "BGR"), ("script", "RGB")])
def test_a_network_may_view_what_a_convolution_gives(networks: Path, kind: str, channels: str, target: str) -> None:
    given = head(networks, "Viewing")
    if kind == "script":
        given = {"weights": traced(networks, "Viewing")}
    on_gpu = {"target": "gpu", "accelerator": "tensorrt"} if target == "tensorrt" else {}
    repository = networks.parent / "repository"
    export(plan_export(one_head_of(given | {"channels": channels}, **on_gpu), trust_pickle=True), repository)
    nodes = [node.op_type for node in onnx.load(repository / "cleanliness" / "1" / "model.onnx").graph.node]
    first = ["Cast", "Transpose"] if target == "tensorrt" else ["Transpose", "Cast"]
    if channels == "RGB" and kind == "weights":
        assert nodes == [*first, "Mul", "Add", "Conv", "Reshape", "Gemm"]
    else:
        assert nodes[: nodes.index("Mul")].index(first[0]) < nodes[: nodes.index("Mul")].index(first[1])
        assert not {"Identity", "Reshape", "Clone"} & {*nodes[: nodes.index("Conv")]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Deciding", "PyTorch cannot export this network to ONNX: Could not guard on data-dependent expression"),
        ("Sorting", "PyTorch cannot export this network to ONNX: No ONNX function found for .*svd"),
        ("UpToFive", "The network fails on a batch of 7 at 64 x 64 pixels: at most five photos.$"),
    ],
)
def test_a_failed_export_has_a_reason_of_one_sentence(
    networks: Path, capfd: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    with pytest.raises(ExportError, match=f"^Head 'cleanliness': {message}") as raised:
        export(plan_export(one_head_of(head(networks, name))), networks.parent / "repository")
    assert str(raised.value).isprintable()
    assert "step" not in str(raised.value)
    assert capfd.readouterr().err == ""
    assert not (networks.parent / "repository").exists()


def test_a_failing_torchscript_shows_no_traceback(networks: Path) -> None:
    file = traced(networks, "Viewing")
    with pytest.raises(NetworkError, match=r"fails on a batch of 1 at 32 x 32 pixels: mat1 and mat2 shapes cannot be"):
        plan_export(one_head_of({"weights": file}, photo_size=32), trust_pickle=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Crashing", r"the network ended the process that ran it \(segmentation fault\) while exporting to ONNX\.\n$"),
        ("Leaving", r"the network ended the process that ran it \(exit code 0\) while loading Leaving.pth\.\n$"),
        # Other versions of PyTorch may not crash.
        ("Assigning", ""),
    ],
)
def test_a_network_that_ends_its_process_is_reported(
    networks: Path, capfd: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    arguments = flags(networks, name)
    before = sorted(networks.parent.iterdir())
    assert main(arguments) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    *steps, error = printed.err.splitlines(keepends=True)
    assert all(re.match(r"\[\d/\d\] ", step) for step in steps)
    assert re.match(f"car-analyzer export: Head 'cleanliness': {message}", error)
    assert sorted(path for path in networks.parent.iterdir() if path.name != "__pycache__") == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_endless_network_ends_with_the_command(networks: Path, number: signal.Signals) -> None:
    arguments = flags(networks, "Endless")
    command = [sys.executable, "-m", "car_analyzer", "export", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        running = networks.with_name("running")
        wait_until(lambda: running.exists() and running.read_text() != "")
        network = psutil.Process(int(running.read_text()))
        process.send_signal(number)
        printed = process.communicate()[1]
    wait_until(lambda: not network.is_running() or network.status() == psutil.STATUS_ZOMBIE)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert printed.endswith("\ncar-analyzer export: interrupted; nothing was published.\n")
        assert not [path for path in networks.parent.iterdir() if "repository" in path.name]


def wait_until(done: Any) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_command_itself_runs_no_network(networks: Path) -> None:
    """It imports no PyTorch, and what a network prints does not reach its stdout."""
    code = "import sys; from car_analyzer._cli.main import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "export", *flags(networks, "Talking"), "--dry-run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dry_run"] is True
    assert "a network says hello" in done.stderr
