"""Proxies in front of the real Triton, unused ports, and separate Tritons."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from car_analyzer_server import Server, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reliability.proxy import Proxy


@pytest.fixture
def proxy(url: str, make_proxy: Callable[..., Proxy]) -> Proxy:
    """A proxy in front of the server, not listening yet; once for each protocol."""
    return make_proxy(url)


@pytest.fixture
def proxy_url(url: str, proxy: Proxy) -> str:
    """The proxy's URL."""
    return f"{urlsplit(url).scheme}://127.0.0.1:{proxy.port}"


@pytest.fixture(params=["grpc", "http"])
def nowhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """A URL without a server, once for each protocol."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"{request.param}://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def start_server() -> Iterator[Callable[..., Any]]:
    """Start a separate Triton, for tests that would disturb others on the shared one."""
    with contextlib.ExitStack() as stack:

        def start(repository: Path, *arguments: str) -> SimpleNamespace:
            settings = Settings(repository, http_port=0, grpc_port=0, metrics_port=0, arguments=arguments)
            running = stack.enter_context(Server(settings))

            def stubs(model: str) -> list[int]:
                ids = []
                for process in Path("/proc").glob("[0-9]*"):
                    with contextlib.suppress(OSError):
                        words = (process / "cmdline").read_bytes().split(b"\0")
                        mine = os.getpgid(int(process.name)) == running.pid
                        if mine and b"stub" in words[0] and any(f"/{model}/".encode() in word for word in words):
                            ids.append(int(process.name))
                return ids

            urls = {"grpc_url": running.grpc_url, "http_url": running.http_url}
            return SimpleNamespace(**urls, pid=running.pid, load=running.load, stubs=stubs)

        yield start
