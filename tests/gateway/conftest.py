"""Real gateways as separate processes, with the shared Triton or a Triton of the test's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fsspec
import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from car_analyzer_server import Server, Settings
from tests.conftest import PATIENCE_S, SMALL_TRITON, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# The answer to health checks with the demo models, which all tests use.
HEALTHY = {
    "status": "OK",
    "description": "Two small networks, trained on drawn cars. On photographs their answers mean nothing.",
    "demo": True,
}


class Gateway:
    """A running `car-analyzer gateway`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        self.url: str = json.loads(line)["gateway"]
        self.port = int(self.url.rpartition(":")[2])
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    def analyze(self, *photos: bytes, **options: Any) -> httpx.Response:
        """Send photos as a form."""
        files = [("image", ("car.jpg", photo, "image/jpeg")) for photo in photos]
        return self.http.post("/analyze", files=files, **options)

    def log(self) -> list[dict[str, Any]]:
        """The log's lines, all of which have to be JSON."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def log_of(self, request_id: str) -> list[dict[str, Any]]:
        """The log's lines of one request, once there are any."""
        return until(lambda: [line for line in self.log() if line.get("request_id") == request_id])

    def health(self, status: int) -> Any:
        """Repeat the health check until it has a status: on a busy machine one check may time out."""
        return until(lambda: (answer := self.http.get("/health")).status_code == status and answer.json())

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 if it does not exist."""
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def rss(self) -> int:
        """The memory of the process, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def peak_rss(self) -> int:
        """The most memory that the process ever had, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def stop(self) -> int:
        """Stop it; its exit code."""
        self.http.close()
        self.process.terminate()
        try:
            code = self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        return code


@contextlib.contextmanager
def running_gateway(folder: Path, *arguments: str, **variables: str) -> Iterator[Gateway]:
    log = folder / f"gateway-{len(list(folder.iterdir()))}.log"
    command = [sys.executable, "-m", "car_analyzer_gateway", "--port", "0", "--json", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CAR_ANALYZER_")}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**inherited, **variables}
        )
    gateway = None
    try:
        gateway = Gateway(process, log)
        yield gateway
    finally:
        if gateway is None:
            process.kill()
            process.communicate()
        else:
            gateway.stop()


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Start gateways with the given flags and variables."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with contextlib.ExitStack() as stack:

        def start(url: str, *arguments: str, **variables: str) -> Gateway:
            return stack.enter_context(running_gateway(folder, "--url", url, *arguments, **variables))

        yield start


@pytest.fixture(scope="session")
def gateway(server: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with default settings, with the shared Triton, for tests that only send requests."""
    with running_gateway(tmp_path_factory.mktemp("gateway"), "--url", server.grpc_url) as running:
        yield running


@pytest.fixture
def start_triton() -> Iterator[Callable[..., Server]]:
    """Start a separate Triton."""
    with contextlib.ExitStack() as stack:

        def start(repository: Path, *arguments: str, **settings: Any) -> Server:
            # Connections that tests leave open would delay its exit by half a minute.
            arguments = ("--exit-timeout-secs=3", *arguments)
            return stack.enter_context(
                Server(Settings(repository, **{**SMALL_TRITON, **settings}, arguments=arguments))
            )

        yield start


@pytest.fixture(scope="session")
def photo(sample_photos: list[Path]) -> bytes:
    """One photo."""
    return sample_photos[0].read_bytes()


@pytest.fixture(scope="session")
def large_photo() -> bytes:
    """Twelve megapixels as a phone makes them: 5 to 6 MB."""
    noise = Image.effect_noise((1000, 750), 60).resize((4000, 3000), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    Image.merge("RGB", (noise, noise.rotate(180), noise)).save(buffer, "JPEG", quality=92)
    assert 4_000_000 < len(buffer.getvalue()) < 8_000_000
    return buffer.getvalue()


def make_form(*photos: bytes) -> tuple[bytes, dict[str, str]]:
    """The body and the header of a form, for many requests."""
    head = (
        b'--x1y2\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = b"".join(head + photo + b"\r\n" for photo in photos) + b"--x1y2--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=x1y2"}


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Where to collect: a folder, or storage of fsspec."""
    if request.param == "folder":
        yield tmp_path / "a" / "b"
    else:
        yield "memory://cars/photos"
        fsspec.filesystem("memory").rm("/", recursive=True)
