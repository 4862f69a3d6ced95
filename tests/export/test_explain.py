"""The ensemble with class activation maps, on a real Triton: served, published, rolled back and signed too."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import tritonclient.grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

from car_analyzer_export.cli import export
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.repository import versions
from car_analyzer_export.repository.publishing import switch
from car_analyzer_server import Server, Settings, signing
from car_analyzer_server.repository import check_repository
from tests.conftest import SMALL_TRITON
from tests.signatures import sign

from .publish_site import HEADS, KEY, Site, config
from .tiny_network import make_network, write_network

if TYPE_CHECKING:
    from pathlib import Path

    from tests.signatures import Keys

pytestmark = pytest.mark.triton

EXPLAIN = "car_analyzer_explain"
WITHOUT_A_MAP = """

def hidden():
    return torch.nn.Sequential(*build()[:-1], torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
"""
FACTORIES = {"cleanliness": "hidden", "condition": "build"}


def write_spec(folder: Path) -> Path:
    """The network of `cleanliness` has no map, that of `condition` has one."""
    network = write_network(folder)
    network.write_text(network.read_text() + WITHOUT_A_MAP)
    lines = ["photo_size = 64"]
    for head, factory in FACTORIES.items():
        torch.save(make_network(network, factory).state_dict(), folder / f"{head}.pth")
        lines += [f"[heads.{head}]", f'weights = "{head}.pth"', f'architecture = "network.py:{factory}"']
        lines += [f"labels = {json.dumps(HEADS[head])}", 'decoding = "scaled"', 'resampling = "exact"']
    spec = folder / "spec.toml"
    spec.write_text("\n".join(lines))
    return spec


def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 12, 3), np.uint8)
    return [Image.fromarray(one).resize((160, 120)) for one in pixels]


def infer(site: Site, model: str, **parameters: str) -> dict[str, Any]:
    """The outputs of an ensemble for both pictures, and the version that answered."""
    files = []
    for picture in pictures():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        files.append([buffer.getvalue()])
    image = tritonclient.grpc.InferInput("image", [len(files), 1], "BYTES")
    image.set_data_from_numpy(np.array(files, dtype=object))
    with tritonclient.grpc.InferenceServerClient(site.server.grpc_url.partition("://")[2]) as client:
        answer = client.infer(model, [image], parameters=parameters)
    names = [output.name for output in answer.get_response().outputs]
    return {"version": answer.get_response().model_version, **{name: answer.as_numpy(name) for name in names}}


def served(site: Site) -> set[int]:
    with site.triton() as triton:
        return {version for version, state in triton.versions(EXPLAIN).items() if state == "READY"}


def torch_map(folder: Path) -> Any:
    """PyTorch's map of `condition`, without the project's code."""
    network = make_network(folder / "network.py").eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = np.stack([picture.resize((64, 64), Image.Resampling.BILINEAR) for picture in pictures()])
    with torch.inference_mode():
        features = network[:4](torch.from_numpy(pixels).float().div(255).sub(mean).div(std).permute(0, 3, 1, 2))
        return torch.einsum("kc,bchw->bkhw", network[-1].weight, features).numpy(), network[-1].bias.numpy()


@pytest.mark.usefixtures("networks_here")
def test_maps_are_served_and_switched_with_the_logits(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(switch, "_longest", lambda _configs: 0.2)
    site = Site(tmp_path, tmp_path / "repository", None, capsys)  # type: ignore[arg-type]
    flags = ["--explain", "--repository", str(site.repository), "--sign", str(keys.private)]
    assert export.main([str(write_spec(tmp_path)), *flags]) == 0
    ways = "explained by class activation maps: condition; by occlusion, since their networks have no such map: "
    assert f"{ways}cleanliness\n" in capsys.readouterr().out
    record = json.loads((site.repository / "car_analyzer" / "1" / "export.json").read_text())
    assert record["explain"] == {"cleanliness": "occlusion", "condition": "map"}
    how = {"network": "condition", "output": "logits", "pixels": "pixels", "map": "condition_map"}
    how["view"] = asdict(View(64, 64, decoding="scaled", resampling="exact"))
    for model in ("car_analyzer", EXPLAIN):
        parameters = config(site.repository, model).parameters
        described = json.loads(parameters["explain"].string_value)
        assert described == {"cleanliness": how | {"network": "cleanliness", "map": None}, "condition": how}
    settings = Settings(site.repository, admin_key=KEY, verify=keys.public, **SMALL_TRITON)
    with Server(settings) as site.server:
        assert f"{EXPLAIN} 1" in site.server.models
        _check_answers(site, parameters["export_id"].string_value)
        _check_switches(site, keys)
    _check_restarts(site, keys)


def _check_answers(site: Site, export_id: str) -> None:
    found, plain = infer(site, EXPLAIN, export_id=export_id), infer(site, "car_analyzer")
    assert set(plain) == {"version", "cleanliness_logits", "condition_logits"}
    assert set(found) == {*plain, "condition_map"}
    for head in HEADS:
        assert np.array_equal(found[f"{head}_logits"], plain[f"{head}_logits"])
    maps, bias = torch_map(site.folder)
    assert found["condition_map"].dtype == np.float32
    np.testing.assert_allclose(found["condition_map"], maps, atol=1e-3)
    np.testing.assert_allclose(maps.mean((2, 3)) + bias, plain["condition_logits"], atol=1e-3)
    with pytest.raises(InferenceServerException, match="Export other is not served here"):
        infer(site, EXPLAIN, export_id="other")


def _check_switches(site: Site, keys: Keys) -> None:
    """Both ensembles change together, and a version without maps is rejected."""
    second, third = site.again(), site.again()
    (site.repository / "car_analyzer" / str(third) / "configs" / f"{EXPLAIN}.pbtxt").unlink()
    sign(site.repository, keys)
    for command, version in ((("publish", "--version", second), second), (("rollback",), 1)):
        code, printed = site.run(*command, "--sign", keys.private)
        assert code == 0, printed
        assert site.served() == site.on_disk() == version
        assert served(site) == {version}
        assert infer(site, EXPLAIN)["version"] == str(version)
        assert config(site.repository, EXPLAIN).version_policy.specific.versions == [version]
        signing.verify(site.repository, keys.public)
    code, printed = site.run("publish", "--version", third, "--sign", keys.private)
    assert code == 1
    assert "side by side: only one of them was exported with --explain, and has class activation maps." in printed
    assert (site.served(), site.on_disk(), served(site)) == (1, 1, {1})


def _check_restarts(site: Site, keys: Keys) -> None:
    """The ensemble is in the repository while the version has maps."""
    for version, there in ((3, False), (2, True), (3, False), (1, True)):
        versions.serve_from_next_start(site.repository, version)
        assert site.on_disk() == version
        assert (site.repository / EXPLAIN).exists() == there
        assert (f"{EXPLAIN} {version}" in check_repository(site.repository)) == there
        assert not list((site.repository / "car_analyzer").glob(".*"))
    sign(site.repository, keys)
    signing.verify(site.repository, keys.public)


def test_nothing_else_changes_without_the_option(repository: Path) -> None:
    assert not (repository / EXPLAIN).exists()
    records = [json.loads(file.read_text()) for file in repository.glob("*/1/export.json")]
    assert records
    assert not any({"maps", "explain"} & set(record) for record in records)
    described = json.loads(config(repository, "car_analyzer").parameters["explain"].string_value)
    assert {head: how["map"] for head, how in described.items()} == {"cleanliness": None, "condition": None}
