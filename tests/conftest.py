"""What every room's tests share: one exported repository, one real Triton on it, photos, and PyTorch's own answer.

No test may depend on speed: `until` waits for events, and `HeldModel` and proxies hold answers back for as long as a
test wants.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import pytest
from filelock import FileLock
from google.protobuf import text_format
from torch.onnx._internal.exporter._registration import ONNXRegistry
from tritonclient.grpc import model_config_pb2

from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from reliability.proxy import Proxy
from reliability.reference import reference_logits
from tests.identities import tritons  # noqa: F401 - a fixture

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from .signatures import Keys

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
REAL_PHOTOS = ROOT.parent / "shared" / "photos"
# Only a guard against hanging: no test may come near it, however slow the machine is.
PATIENCE_S = 120.0
# Free ports, and few processes: to start one takes a quarter of a second of processor time.
SMALL_TRITON: dict[str, int] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, "cores": 1}
HELD_MODEL = """
import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.outputs = json.loads(args["model_config"])["output"]

    def execute(self, requests):
        with open({requests!r}, "a") as file:
            file.writelines(request.request_id() + "\\n" for request in requests)
        while os.path.exists({gate!r}):
            time.sleep(0.02)
        return [pb_utils.InferenceResponse([self.zeros(**output) for output in self.outputs]) for _ in requests]

    def zeros(self, name, data_type, dims, **_):
        return pb_utils.Tensor(name, np.zeros((1, *map(int, dims)), pb_utils.triton_string_to_numpy(data_type)))
"""

T = TypeVar("T")

# PyTorch translates its 500 operators again for each export, which is half of the time for a small network.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]

# To stop, a Triton needs four seconds, which have tests of their own. One that a test is done with is killed.
Server.__exit__ = lambda server, *_: server.stop(at_once=True)  # type: ignore[method-assign]


def until(condition: Callable[[], T], seen: Callable[[], object] = lambda: "") -> T:
    """Wait until something is true; what it came to. `seen` says what stands in the way."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {seen()}"
        time.sleep(0.02)
    return value


def edit(repository: Path, model: str, change: Callable[[Any], None]) -> None:
    """Change a model's configuration."""
    file = repository / model / "config.pbtxt"
    config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    change(config)
    file.write_text(text_format.MessageToString(config))


# Nothing about preprocessing is left to the export: to have it decided takes seconds, and has tests of its own.
PINNED = {"decoding": "scaled", "resampling": "exact"}


def decided(spec: Spec) -> Spec:
    """The same, with what it leaves open pinned."""
    networks = {
        name: network.model_copy(update={key: PINNED[key] for key in network.left_open})
        for name, network in spec.networks.items()
    }
    return spec.model_copy(update={"networks": networks})


# Starting Triton or a gateway takes seconds. Modules whose other tests do so say it themselves, with `pytestmark`.
_TRITON_FIXTURES = {
    "gateway",
    "repository",
    "server",
    "site",
    "start_gateway",
    "start_server",
    "start_triton",
    "tritons",
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that need a running Triton or gateway."""
    if not _TRITON_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.triton)


# Files that wait or compute for longest. `--dist loadfile` hands files out in this order: one of them that came last
# would keep one worker busy while the others have nothing left.
_LONGEST = (
    "test_publish.py",
    "test_parity.py",
    "test_trouble.py",
    "test_faults.py",
    "test_overload.py",
    "test_memory.py",
    "test_healing.py",
    "test_gpu.py",
    "test_publish_ended.py",
    "test_publish_compared.py",
    "test_export.py",
    "test_whole_way.py",
    "test_check.py",
    "test_running.py",
    "test_replicas.py",
    "test_check_before_publishing.py",
    "test_tracing.py",
    "test_strange_networks.py",
)


@pytest.hookimpl(trylast=True)  # after pytest-randomly has shuffled them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    rank = {name: position for position, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


class HeldModel:
    """Replaces a model by one that answers zeros, one request at a time, and nothing while it is held."""

    def __init__(self, repository: Path, model: str) -> None:
        self.file = repository / model / "1" / "model.py"
        self._gate = repository.parent / f"{model}.held"
        self._requests = repository.parent / f"{model}.requests"

        def change(config: Any) -> None:
            config.backend = "python"
            config.max_batch_size = config.instance_group[0].count = 1
            del config.dynamic_batching.preferred_batch_size[:], config.model_warmup[:]

        edit(repository, model, change)
        edit(repository, "car_analyzer", lambda config: setattr(config, "max_batch_size", 1))
        self.file.write_text(HELD_MODEL.format(requests=str(self._requests), gate=str(self._gate)))

    @property
    def requests(self) -> list[str]:
        """The ids of the requests that have come to it."""
        return self._requests.read_text().split() if self._requests.exists() else []

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have it answer nothing meanwhile."""
        self._gate.touch()
        try:
            yield
        finally:
            self._gate.unlink()


@pytest.fixture(scope="session")
def make_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a folder in the first worker that needs it; the others get the same. Not to be written to."""
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        done = shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                make(shared / name)
                done.touch()
        return shared / name

    return folder


@pytest.fixture(scope="session")
def repository(make_once: Callable[..., Path]) -> Path:
    """A model repository with the demo models as version 1, the same for all workers. Not to be written to."""

    def make(folder: Path) -> None:
        export(plan_export(Spec.from_file(EXAMPLES / "demo.toml")), folder / "model_repository")

    return make_once("exported", make) / "model_repository"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[SimpleNamespace]:
    """A real Triton on free ports, for the whole session."""
    with Server(Settings(repository, **SMALL_TRITON)) as running:
        yield SimpleNamespace(
            grpc_url=running.grpc_url,
            http_url=running.http_url,
            metrics_url=running.metrics_url,
            repository=repository,
            pid=running.pid,
        )


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A model repository to change."""
    return shutil.copytree(repository, tmp_path / "model_repository")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The key pair of `signed`."""
    from .signatures import make_keys

    return make_keys(tmp_path)


@pytest.fixture
def signed(copy: Path, keys: Keys) -> Path:
    """A signed model repository to change."""
    from .signatures import sign

    sign(copy, keys)
    return copy


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    """Make proxies in front of a URL's port."""
    with contextlib.ExitStack() as stack:

        def make(url: str, tls: ssl.SSLContext | None = None) -> Proxy:
            proxy = Proxy(urlsplit(url).port or 0, tls)
            stack.callback(proxy.close)
            return proxy

        yield make


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
    return reference_logits
