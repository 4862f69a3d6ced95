"""Everything works over IPv6, too: Triton's three ports, the SDK, and a gateway."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from car_analyzer import CarAnalyzer
from car_analyzer_server import Server, Settings, StartError
from tests.conftest import SMALL_TRITON

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import SimpleNamespace


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "car_analyzer", "serve", "--json", "--host", "::1", "--repository", repository]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--cores", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_sdk(served: dict[str, Any], server: SimpleNamespace, sample_photos: list[Path], protocol: str) -> None:
    assert served[protocol].startswith(f"{protocol}://[::1]:")
    with CarAnalyzer(served[protocol]) as there, CarAnalyzer(server.grpc_url) as here:
        assert there.health().ready
        assert there.analyze(sample_photos[0]).heads == here.analyze(sample_photos[0]).heads


def test_the_metrics(served: dict[str, Any]) -> None:
    with urllib.request.urlopen(served["metrics"]) as answer:
        assert b"nv_inference_request_success" in answer.read()


def test_a_gateway(served: dict[str, Any], sample_photos: list[Path]) -> None:
    command = [sys.executable, "-m", "car_analyzer_gateway", "--json", "--url", served["grpc"]]
    with subprocess.Popen([*command, "--host", "::1", "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            url = json.loads(line)["gateway"]
            assert url.startswith("http://[::1]:")
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                assert client.get("/health").status_code == 200
                with sample_photos[0].open("rb") as photo:
                    assert "cleanliness" in client.post("/analyze", files={"image": photo}).raise_for_status().json()
        finally:
            process.terminate()


def test_a_port_in_use(repository: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"Port {port} on ::1 cannot be used \(Address already in use\)"):
            Server(Settings(repository, host="::1", **{**SMALL_TRITON, "grpc_port": port})).start()


def test_where_to_find_one_that_listens_everywhere() -> None:
    assert Server(Settings(host="::")).grpc_url == "grpc://[::1]:8001"
