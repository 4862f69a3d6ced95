"""Decoding waits while the networks have enough decoded photos, and not without metrics."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer_export.preprocess import backlog

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 64
# As Triton 2.51 writes them.
METRICS = """\
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="preprocess",version="1"}} 128
nv_inference_pending_request_count{{model="other",version="1"}} 1000
nv_inference_pending_request_count{{model="cleanliness",version="2"}} 3
nv_inference_pending_request_count{{model="condition",version="1"}} 1000
nv_inference_pending_request_count{{model="cleanliness",version="3"}} 1000
nv_inference_pending_request_count{{model="condition",version="2"}} {waiting}
"""


class Metrics(ThreadingHTTPServer):
    """Answers each request with the next count, and with the last one for ever."""

    def __init__(self, *counts: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.counts = list(counts)
        self.read = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Metrics

    def do_GET(self) -> None:
        count = self.server.counts[min(self.server.read, len(self.server.counts) - 1)]
        self.server.read += 1
        body = METRICS.format(waiting=count).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def metrics(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    with Metrics(*request.param) as server:
        monkeypatch.setenv("CAR_ANALYZER_METRICS_URL", f"http://127.0.0.1:{server.server_port}/metrics")
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


def decode(photos: int) -> None:
    waiting = backlog.Backlog(["cleanliness", "condition"], "2", LIMIT)
    for _ in range(photos):
        waiting.wait()
    if waiting._connection is not None:
        waiting._connection.close()


@pytest.mark.parametrize("metrics", [(LIMIT, LIMIT + 5, LIMIT - 1)], indirect=True)
def test_it_waits_until_a_network_has_less_to_do(metrics: Metrics) -> None:
    decode(backlog.CHECKED_EVERY)
    assert metrics.read == 3


@pytest.mark.parametrize("metrics", [(LIMIT - 1,)], indirect=True)
def test_the_metrics_are_not_read_for_each_photo(metrics: Metrics) -> None:
    decode(3 * backlog.CHECKED_EVERY)
    assert metrics.read == 3


@pytest.mark.parametrize("metrics", [(10_000,)], indirect=True)
def test_a_number_that_never_falls_does_not_stop_it_for_ever(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_LONGEST_S", 0.05)
    decode(backlog.CHECKED_EVERY)
    assert metrics.read


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:9/metrics"])
def test_without_metrics_nothing_waits(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAR_ANALYZER_METRICS_URL", address)
    monkeypatch.setattr(backlog.time, "sleep", lambda _: pytest.fail("waited"))
    decode(2 * backlog.CHECKED_EVERY)
