"""What every room's tests share: one exported repository, one real Triton on it, photos, and PyTorch's own answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from reliability import known
from tests.identities import tritons  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
REAL_PHOTOS = ROOT.parent / "shared" / "photos"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the demo models as version 1. Not to be written to."""
    folder = tmp_path_factory.mktemp("exported") / "model_repository"
    export(plan_export(Spec.from_file(EXAMPLES / "demo.toml")), folder)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[SimpleNamespace]:
    """A real Triton on free ports, for the whole session."""
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)) as running:
        yield SimpleNamespace(
            grpc_url=running.grpc_url,
            http_url=running.http_url,
            metrics_url=running.metrics_url,
            repository=repository,
            pid=running.pid,
        )


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, server: SimpleNamespace) -> str:
    """The server's address, once for each protocol."""
    return str(getattr(server, f"{request.param}_url"))


@pytest.fixture(scope="session")
def sample_photos() -> list[Path]:
    """The demo's photos of drawn cars; their names start with both labels."""
    return sorted((EXAMPLES / "photos").glob("*.jpg"))


@pytest.fixture(scope="session")
def real_photos() -> list[Path]:
    """Photographs, where they lie beside the checkout."""
    photos = sorted(path for path in REAL_PHOTOS.glob("*") if path.suffix in (".jpg", ".png"))
    if not photos:
        pytest.skip("no photographs beside the checkout")
    return photos


@pytest.fixture(scope="session")
def reference() -> Callable[[bytes], dict[str, list[float]]]:
    """PyTorch's logits for a photo, by the recipe the models were trained with and none of the project's code."""
    return known.reference
