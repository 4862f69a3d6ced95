"""Servers that are missing, starting, stopped, slow, or busy."""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import pytest

from car_analyzer import (
    TLS,
    AsyncCarAnalyzer,
    CarAnalyzer,
    DeadlineExceededError,
    OverloadedError,
    PhotoError,
    Retry,
    ServerError,
    UnreachableError,
)
from car_analyzer._transports import open_transport
from car_analyzer.config import Endpoint
from tests.conftest import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reliability.proxy import Proxy

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"


def test_no_server(nowhere: str, sample_photos: list[Path]) -> None:
    with CarAnalyzer(nowhere, timeout=60, retry=Retry(connect_patience=0.3)) as analyzer:
        with pytest.raises(UnreachableError, match="refused") as caught:
            analyzer.analyze(sample_photos[0])
        assert nowhere in str(caught.value)
        health = analyzer.health()
        assert (health.ready, health.server_ready, health.models) == (False, False, {})
        assert nowhere in str(health.message)
        with pytest.raises(UnreachableError):
            analyzer.wait_until_ready(2)


def test_a_missing_server_is_reported_before_a_shorter_deadline(nowhere: str, sample_photos: list[Path]) -> None:
    patient = Retry(connect_patience=PATIENCE_S)
    with CarAnalyzer(nowhere, timeout=2, retry=patient) as analyzer, pytest.raises(UnreachableError, match="refused"):
        analyzer.analyze(sample_photos[0])


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_names_that_do_not_exist(scheme: str, sample_photos: list[Path]) -> None:
    analyzer = CarAnalyzer(f"{scheme}://no-such-host.invalid", retry=Retry(attempts=1))
    with analyzer, pytest.raises(UnreachableError, match=r"no-such-host\.invalid"):
        analyzer.analyze(sample_photos[0])


def test_the_other_protocols_port(url: str, server: Any, sample_photos: list[Path]) -> None:
    wrong = (
        server.http_url.replace("http", "grpc") if url == server.grpc_url else server.grpc_url.replace("grpc", "http")
    )
    with (
        CarAnalyzer(wrong, retry=Retry(attempts=1)) as analyzer,
        pytest.raises(UnreachableError, match="write (http|grpc)://"),
    ):
        analyzer.analyze(sample_photos[0])


def coming(proxy: Proxy, patience: float) -> Retry:
    """Start the server after some attempts were refused."""

    class Coming(Retry):
        def delay(self, failures: int) -> float:
            if failures == 3:
                proxy.listen()
            return super().delay(failures)

    return Coming(connect_patience=patience)


def test_server_that_comes_later(proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    with CarAnalyzer(proxy_url, retry=coming(proxy, PATIENCE_S)) as analyzer:
        assert analyzer.analyze(sample_photos[0]).ok


def test_server_that_went_away_and_came_back(proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    proxy.listen()
    with CarAnalyzer(proxy_url, retry=coming(proxy, 0)) as analyzer:
        assert analyzer.analyze(sample_photos[0]).ok
        proxy.refuse()
        assert analyzer.analyze(sample_photos[0]).ok  # it answered once: only the deadline ends the patience
    with CarAnalyzer(proxy_url) as analyzer:
        assert analyzer.analyze(sample_photos[0]).ok
        proxy.refuse()
        with pytest.raises(UnreachableError):
            analyzer.analyze(sample_photos[0], timeout=2)


def test_waiting_for_a_server_that_comes_later(proxy: Proxy, proxy_url: str) -> None:
    timer = threading.Timer(0.7, proxy.listen)
    with CarAnalyzer(proxy_url) as analyzer:
        assert not analyzer.health().ready
        timer.start()
        analyzer.wait_until_ready(PATIENCE_S)
        assert analyzer.health(PATIENCE_S).ready
    timer.join()


def test_connections_that_are_cut(proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    proxy.cut = 3
    proxy.listen()
    with CarAnalyzer(proxy_url, retry=Retry(connect_patience=PATIENCE_S)) as analyzer:
        assert analyzer.analyze(sample_photos[0]).ok
    assert proxy.connections >= 4


def test_cut_in_the_middle_of_a_crowd(server: Any, make_proxy: Callable[..., Proxy], sample_photos: list[Path]) -> None:
    # Over HTTP only: the Triton in the PyPI wheel may crash when a gRPC call to an ensemble is interrupted.
    proxy = make_proxy(server.http_url).listen()
    with CarAnalyzer(f"http://127.0.0.1:{proxy.port}") as analyzer:
        results = analyzer.analyze_many([sample_photos[0]] * 120, concurrency=16)
        for number, result in enumerate(results):
            assert result.ok, result
            if number in (20, 60):
                proxy.refuse()
                proxy.listen()
        assert number == 119


def test_busy_proxies_are_asked_again(server: Any, make_proxy: Callable[..., Proxy], sample_photos: list[Path]) -> None:
    proxy = make_proxy(server.http_url)
    proxy.replies = [BUSY, BUSY.replace(b"503 Service Unavailable", b"429 Too Many Requests")]
    proxy.listen()
    with CarAnalyzer(f"http://127.0.0.1:{proxy.port}") as analyzer:
        assert analyzer.analyze(sample_photos[0]).ok
    assert not proxy.replies


def test_busy_to_the_end(server: Any, make_proxy: Callable[..., Proxy], sample_photos: list[Path]) -> None:
    proxy = make_proxy(server.http_url)
    proxy.replies = [BUSY] * 1000
    proxy.listen()
    url = f"http://127.0.0.1:{proxy.port}"
    with CarAnalyzer(url) as analyzer, pytest.raises(DeadlineExceededError, match="longer than 2 s.*503"):
        analyzer.analyze(sample_photos[0], timeout=2)
    with CarAnalyzer(url, retry=Retry(attempts=2)) as analyzer, pytest.raises(OverloadedError, match="503"):
        analyzer.analyze(sample_photos[0])


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", ServerError, "status 404 and without Triton"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", ServerError, "status 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", ServerError, "cannot read the answer"),
        (b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", PhotoError, "too large"),
        (b'HTTP/1.1 403 No\r\nContent-Length: 14\r\n\r\n{"error":"no"}', ServerError, "headers="),
    ],
)
def test_answers_of_other_servers_than_triton(
    reply: bytes,
    error: type[Exception],
    words: str,
    server: Any,
    make_proxy: Callable[..., Proxy],
    sample_photos: list[Path],
) -> None:
    proxy = make_proxy(server.http_url)
    proxy.replies = [reply]
    proxy.listen()

    async def ask() -> None:
        transport = open_transport(Endpoint.parse(f"http://127.0.0.1:{proxy.port}"), None, {})
        photo = sample_photos[0].read_bytes()
        try:
            await transport.infer("car_analyzer", photo, timeout=60, request_id="", export_id=None)
        finally:
            await transport.close()

    with pytest.raises(error, match=words):
        asyncio.run(ask())


def test_deadline_of_a_server_that_hangs(proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    proxy.listen()
    with CarAnalyzer(proxy_url) as analyzer:
        assert analyzer.analyze(sample_photos[0]).ok
        proxy.freeze()
        with pytest.raises(DeadlineExceededError, match=r"longer than 0\.3 s"):
            analyzer.analyze(sample_photos[0], timeout=0.3)
        assert not analyzer.health(0.3).ready


def test_deadline_covers_reading_the_photo(url: str) -> None:
    release = threading.Event()

    class Slow(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            release.wait(PATIENCE_S)
            return b"late"

    with CarAnalyzer(url) as analyzer:
        with pytest.raises(DeadlineExceededError, match="reading the photo"):
            analyzer.analyze(Slow(), timeout=0.2)  # type: ignore[arg-type]
        release.set()


async def test_cancelling_a_call(proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    proxy.listen()
    async with AsyncCarAnalyzer(proxy_url) as analyzer:
        await analyzer.analyze(sample_photos[0])
        proxy.freeze()
        call = asyncio.create_task(analyzer.analyze(sample_photos[0]))
        await asyncio.to_thread(proxy.stalled.wait, PATIENCE_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


def test_closing_during_a_call(proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    proxy.listen()
    analyzer = CarAnalyzer(proxy_url)
    analyzer.analyze(sample_photos[0])
    proxy.freeze()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(analyzer.analyze, sample_photos[0], timeout=PATIENCE_S)
        proxy.stalled.wait(PATIENCE_S)
        analyzer.close()
        with pytest.raises(RuntimeError, match="closed"):
            call.result()


def _analyze_in_child(analyzer: CarAnalyzer, photo: Path, answers: Any) -> None:
    answers.put(analyzer.analyze(photo, timeout=PATIENCE_S).heads)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_processes_may_use_the_parents_client(url: str, sample_photos: list[Path]) -> None:
    context = multiprocessing.get_context("fork")
    with CarAnalyzer(url) as analyzer:
        expected = analyzer.analyze(sample_photos[0]).heads
        answers = context.SimpleQueue()
        children = [
            context.Process(target=_analyze_in_child, args=(analyzer, sample_photos[0], answers)) for _ in range(3)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(PATIENCE_S)
            if child.is_alive():
                child.kill()
            assert child.exitcode == 0
            assert answers.get() == expected
        assert analyzer.analyze(sample_photos[0]).heads == expected
        answers.close()


@contextlib.contextmanager
def _grpc_server(handler: Callable[[bytes, Any], None]) -> Iterator[str]:
    """The URL of a server that answers every request as `handler` does."""
    methods = {"ModelConfig": grpc.unary_unary_rpc_method_handler(handler)}
    handlers = [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)]
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=handlers)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(0)


def test_a_message_that_is_not_valid_text(sample_photos: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    def abort(_: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, b"in ensemble 'car_analyzer', \xe2k](\xc2\x7f")

    with (
        _grpc_server(abort) as url,
        CarAnalyzer(url, retry=Retry(attempts=1)) as analyzer,
        pytest.raises(OverloadedError, match="the server gave no reason"),
    ):
        analyzer.analyze(sample_photos[0])
    assert not caplog.records


def test_a_call_that_the_server_cancels_is_repeated(sample_photos: list[Path]) -> None:
    """As Triton cancels a call that arrives while it ends."""
    calls = []

    def cancel(_: bytes, context: Any) -> None:
        calls.append(context)
        context.cancel()

    with (
        _grpc_server(cancel) as url,
        CarAnalyzer(url, retry=Retry(attempts=3, connect_patience=PATIENCE_S)) as analyzer,
        pytest.raises(UnreachableError, match="the server cancelled the call"),
    ):
        analyzer.analyze(sample_photos[0])
    assert len(calls) == 3


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_tls(
    scheme: str, server: Any, make_proxy: Callable[..., Proxy], tmp_path: Path, sample_photos: list[Path]
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"] if scheme == "grpcs" else ["http/1.1"])
    proxy = make_proxy(server.grpc_url if scheme == "grpcs" else server.http_url, context).listen()
    # "localhost" has two addresses, and gRPC reports the one that failed last.
    url = f"{scheme}://127.0.0.1:{proxy.port}"
    with CarAnalyzer(url, tls=TLS(ca=certificate)) as analyzer:
        assert analyzer.analyze(sample_photos[0]).ok
    with (
        CarAnalyzer(url, retry=Retry(attempts=1)) as analyzer,
        pytest.raises(UnreachableError, match="(?i)certificate"),
    ):
        analyzer.analyze(sample_photos[0])


def test_headers_open_restricted_servers(
    server: Any, start_server: Callable[..., Any], sample_photos: list[Path]
) -> None:
    restrictions = [
        "--grpc-restricted-protocol=inference,model-config:x-key=s3cret",
        "--http-restricted-api=inference,model-config:triton-grpc-protocol-x-key=s3cret",
    ]
    mine = start_server(server.repository, *restrictions)
    for url in (mine.grpc_url, mine.http_url):
        with CarAnalyzer(url, headers={"Triton-Grpc-Protocol-X-Key": "s3cret"}) as analyzer:
            assert analyzer.analyze(sample_photos[0]).ok
        with CarAnalyzer(url) as analyzer, pytest.raises(ServerError, match=r"restricted.*headers="):
            analyzer.analyze(sample_photos[0])


def test_an_instance_that_died_is_worked_around(
    server: Any, start_server: Callable[..., Any], sample_photos: list[Path]
) -> None:
    mine = start_server(server.repository)
    with CarAnalyzer(mine.grpc_url) as grpc, CarAnalyzer(mine.http_url) as http:
        first, *others = mine.stubs("preprocess")
        assert others, "without another instance nothing could work around it"
        os.kill(first, signal.SIGKILL)
        for analyzer in (grpc, http):
            assert [result.ok for result in analyzer.analyze_many(sample_photos[:4])] == [True] * 4
    os.kill(mine.pid, signal.SIGKILL)  # asked politely, it would wait half a minute for the instance
