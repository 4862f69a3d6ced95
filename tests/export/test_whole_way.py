"""From files on disk to answers on the command line, as a user goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from car_analyzer import CarAnalyzer
from car_analyzer._cli.main import main
from car_analyzer_export.cli.export import print_export
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from tests.conftest import EXAMPLES, SMALL_TRITON, decided
from tests.export import zoo

if TYPE_CHECKING:
    from car_analyzer import Analysis

pytestmark = pytest.mark.triton

ZOO = Path(zoo.__file__)


def analyze(repository: Path, photo: Path) -> Analysis:
    with Server(Settings(repository, **SMALL_TRITON)) as server, CarAnalyzer(server.grpc_url) as analyzer:
        return analyzer.analyze(photo)


def prepared(photo: Path, size: int) -> torch.Tensor:
    functional = zoo.import_torchvision("torchvision.transforms.v2.functional")
    with Image.open(photo) as image:
        resized = functional.resize(image.convert("RGB"), [size, size])
    tensor = functional.to_dtype(functional.to_image(resized), torch.float32, scale=True)
    return functional.normalize(tensor, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]


def test_two_bare_torchvision_checkpoints_need_no_architecture(
    tmp_path: Path, sample_photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    models = zoo.import_torchvision("torchvision.models")

    def resnet() -> Any:
        network = models.resnet18(weights=None)
        network.fc = torch.nn.Linear(512, 2)
        return network

    def mobilenet() -> Any:
        network = models.mobilenet_v3_small(weights=None)
        network.classifier[3] = torch.nn.Linear(1024, 2)
        return network

    networks = {"cleanliness": zoo.seeded(resnet, 1), "condition": zoo.seeded(mobilenet, 2)}
    heads = {head: {"weights": tmp_path / f"{head}_model.pth"} for head in networks}
    for head, network in networks.items():
        torch.save(network.state_dict(), heads[head]["weights"])
    # In this process, where torchvision could be imported.
    plan = plan_export(decided(Spec.from_values({"heads": heads, "photo_size": 96}, "test")))
    print_export(plan, export(plan, tmp_path / "repository"), None)
    told = capsys.readouterr()
    assert "torchvision:resnet18" in told.out
    assert "torchvision:mobilenet_v3_small" in told.out
    assert "intact, damaged is assumed" in told.err
    assert "car-analyzer check" in told.err
    answer = analyze(tmp_path / "repository", sample_photos[0])
    for head, network in networks.items():
        with torch.inference_mode():
            expected = network(prepared(sample_photos[0], 96))[0].tolist()
        assert answer.heads[head].logits == pytest.approx(expected, abs=1e-3)


@pytest.mark.usefixtures("networks_here")
def test_a_third_head_needs_only_its_table(
    tmp_path: Path, sample_photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, make in (("tires", lambda: zoo.Small(3)), ("glass", zoo.OneLogit)):
        torch.save(zoo.seeded(make, 5).state_dict(), tmp_path / f"{name}.pth")
    (tmp_path / "cars.toml").write_text(f"""
        [heads.cleanliness]
        weights = "{EXAMPLES}/cleanliness_model.pth"
        architecture = "{EXAMPLES}/demo_network.py:build"
        decoding = "scaled"
        resampling = "exact"

        [heads.tires]
        weights = "tires.pth"
        architecture = "{ZOO}:Small"
        kwargs = {{ classes = 3 }}
        labels = ["good", "worn", "flat"]
        photo_size = 96
        shortest_edge = 110
        decoding = "scaled"
        resampling = "exact"

        [heads.glass]
        weights = "glass.pth"
        architecture = "{ZOO}:OneLogit"
        labels = ["whole", "broken"]
        photo_size = 96
        shortest_edge = 110
        decoding = "scaled"
        resampling = "exact"
    """)
    command = [sys.executable, "-m", "car_analyzer"]
    repository = str(tmp_path / "repository")
    exported = ["export", str(tmp_path / "cars.toml"), "--repository", repository]
    assert main([*exported, "--dry-run", "--json"]) == 0
    networks = json.loads(capsys.readouterr().out)["networks"]
    assert list(networks) == ["cleanliness", "tires", "glass"]
    assert all(network["compared_with_pytorch"]["batches"] for network in networks.values())
    assert not Path(repository).exists()
    assert main(exported) == 0
    with Server(Settings(Path(repository), **SMALL_TRITON)) as server:
        asked = [*command, "analyze", str(sample_photos[0]), "--url", server.grpc_url]
        answer = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    heads = ("cleanliness", "tires", "glass")
    assert list(answer) == [key for head in heads for key in (head, f"{head}Confidence")] + ["processingTime"]
    assert answer["tires"] in ("good", "worn", "flat")
    assert answer["glass"] in ("whole", "broken")


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # TorchScript itself is
def test_what_runs_code_serves_once_it_is_trusted(tmp_path: Path, sample_photos: list[Path]) -> None:
    networks = {name: zoo.seeded(zoo.Small, seed) for seed, name in enumerate(("pickled", "script", "program"))}
    example = torch.zeros(2, 3, 96, 96)
    torch.save(networks["pickled"], tmp_path / "pickled.pth")
    torch.jit.trace(networks["script"], example).save(str(tmp_path / "script.pth"))
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(networks["program"], (example,), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "program.pt2")
    files = {"pickled": "pickled.pth", "script": "script.pth", "program": "program.pt2"}
    heads = {name: {"weights": tmp_path / file, "labels": ["no", "yes"]} for name, file in files.items()}
    spec = decided(Spec.from_values({"heads": heads, "photo_size": 96}, "test"))
    export(plan_export(spec, trust_pickle=True), tmp_path / "repository")
    answer = analyze(tmp_path / "repository", sample_photos[0])
    for name, network in networks.items():
        with torch.inference_mode():
            expected = network(prepared(sample_photos[0], 96))[0].tolist()
        assert answer.heads[name].logits == pytest.approx(expected, abs=1e-3)
