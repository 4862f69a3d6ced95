"""A tiny network, its checkpoint, a Triton to publish it to, labelled pictures, and the libraries of known networks."""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from car_analyzer_export import network_process
from car_analyzer_export.export import export
from car_analyzer_export.network_process import NetworkProcess
from car_analyzer_export.planning import plan_export
from car_analyzer_export.repository import versions
from car_analyzer_export.repository.publishing import switch
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from tests.conftest import EXAMPLES, PINNED, SMALL_TRITON
from tests.export.zoo import import_torchvision

from .labelled_photos import PICTURES
from .publish_site import KEY, Site
from .tiny_network import make_network, write_network


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    return write_network(tmp_path)


@pytest.fixture
def weights(tmp_path: Path, network_file: Path) -> Path:
    file = tmp_path / "weights.pth"
    torch.save(make_network(network_file).state_dict(), file)
    return file


@pytest.fixture
def one_head(weights: Path, network_file: Path) -> Spec:
    head = {"weights": weights, "architecture": f"{network_file}:build", **PINNED}
    return Spec.from_values({"heads": {"cleanliness": head}, "photo_size": 64}, "test")


@pytest.fixture
def networks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run networks in the process of the test: to start one and import PyTorch there takes four seconds."""

    def ask(networks: NetworkProcess, question: Any, _step_timeout: float | None = None) -> Any:
        plans, progress = networks.__dict__.setdefault("plans", []), networks._progress
        if plans:
            kind, *details = question
            with monkeypatch.context() as own:
                own.setattr(tempfile, "tempdir", tempfile.tempdir)  # `_answer` changes it
                return network_process._answer(plans[0], kind, details, progress)
        _, spec, trust_pickle = question
        plans.append(plan_export(spec, trust_pickle=trust_pickle, progress=progress))
        return pickle.loads(pickle.dumps(plans[0]))

    monkeypatch.setattr(NetworkProcess, "__enter__", lambda networks: networks)
    monkeypatch.setattr(NetworkProcess, "__exit__", lambda *_: None)
    monkeypatch.setattr(NetworkProcess, "_ask", ask)


@pytest.fixture(scope="session")
def pictures(make_once: Callable[..., Path]) -> Path:
    """Drawn cars, none of which the demo models were trained with, in folders such as `dirty_intact`."""
    return make_once("labelled", draw_pictures)


def draw_pictures(folder: Path) -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        from draw_cars import draw_labelled
    finally:
        sys.path.remove(str(EXAMPLES))
    draw_labelled(folder, PICTURES, 0)


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("publish")
    write_network(folder)
    site = Site(folder, folder / "repository", None)  # type: ignore[arg-type]
    export(plan_export(Spec.from_file(site.spec(0))), site.repository)
    with Server(Settings(site.repository, admin_key=KEY, **SMALL_TRITON)) as site.server:
        yield site


@pytest.fixture
def site(shared_site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    """Serves some version or other, which is also the one on disk."""
    monkeypatch.setattr(switch, "_longest", lambda _configs: 0.2)
    shared_site.capture = capsys
    shared_site.start_again()
    if shared_site.served() != versions.on_disk(shared_site.repository):
        versions.serve_from_next_start(shared_site.repository, shared_site.served())
    return shared_site


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Repeat a test once if its Triton crashed, as the wheel's sometimes does when it unloads a model."""
    try:
        return (yield)
    except Exception as error:
        site = pyfuncitem.funcargs.get("site")
        if site is None or (code := site.start_again()) is None or code >= 0:
            raise
        print(f"Triton ended with exit code {code}, and the test is repeated, in which this failed: {error!r}")
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
        return True


@pytest.fixture(scope="module")
def libraries() -> tuple[Any, Any]:
    """torchvision.models and timm."""
    return import_torchvision("torchvision.models"), pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="module")
def models(libraries: tuple[Any, Any]) -> Any:
    return libraries[0]


@pytest.fixture(scope="module")
def timm(libraries: tuple[Any, Any]) -> Any:
    return libraries[1]
