"""One trace from a caller through the gateway into Triton, received by a small real collector."""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format

from reliability.service import Service
from tests.conftest import until

pytest.importorskip("opentelemetry.sdk", reason="the extra [tracing] is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import Gateway


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]


class Collector:
    """Receives traces, OTLP over HTTP, in both encodings."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    collector.spans += list(read(body, self.headers["Content-Type"]))  # all at the same moment
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, trace: str, complete: Callable[[list[Span]], bool]) -> list[Span]:
        """A trace's spans, once they are all there."""
        return until(lambda: complete(found := [span for span in self.spans if span.trace == trace]) and found)


def read(body: bytes, content_type: str) -> Iterator[Span]:
    if content_type.startswith("application/json"):
        document = json.loads(body)
    else:
        document = json_format.MessageToDict(ExportTraceServiceRequest.FromString(body))
    for resource in document["resourceSpans"]:
        attributes = read_attributes(resource["resource"])
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                ids = (to_hex(span.get(key, "")) for key in ("traceId", "spanId", "parentSpanId"))
                yield Span(attributes["service.name"], span["name"], *ids, read_attributes(span))


def read_attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in of.get("attributes", [])}


def to_hex(value: str) -> str:
    """Protobuf's own JSON has bytes in base64, OTLP's in hexadecimal digits."""
    return value if len(value) in (0, 16, 32) and not value.endswith("=") else base64.b64decode(value).hex()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def test_one_trace_from_the_caller_into_triton(
    collector: Collector, repository: Path, start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    setting = {"CAR_ANALYZER_OTLP_ENDPOINT": collector.url}
    with Service(repository, variables=setting) as triton:
        for protocol in ("grpc", "http"):
            gateway = start_gateway(triton.addresses[protocol], **setting)
            trace, caller = secrets.token_hex(16), secrets.token_hex(8)
            answer = gateway.analyze(photo, headers={"traceparent": f"00-{trace}-{caller}-01"})
            assert answer.status_code == 200
            spans = collector.wait_for(trace, is_complete)
            (request,) = [span for span in spans if span.name == "POST /analyze"]
            assert (request.service, request.parent) == ("car-analyzer-gateway", caller)
            assert int(request.attributes["http.response.status_code"]) == 200
            assert request.attributes["request.id"] == answer.headers["x-request-id"]
            photos = {span.id for span in spans if span.name == "analyze photo" and span.parent == request.id}
            assert len(photos) == 1
            tritons = [span for span in spans if span.service == "triton"]
            assert {span.parent for span in tritons if span.name == "InferRequest"} == photos
            models = {span.name for span in tritons}
            assert {"car_analyzer", "preprocess", "cleanliness", "condition"} <= models
            # A request without a trace gets one; health checks do not.
            gateway.analyze(photo)
            gateway.http.get("/health")
            others = [span for span in collector.spans if span.trace != trace and span.service != "triton"]
            assert not [span for span in others if "health" in span.name]


def is_complete(spans: list[Span]) -> bool:
    return (
        any(span.name == "POST /analyze" for span in spans)
        and sum(span.service == "triton" and span.name == "InferRequest" for span in spans) == 1
    )


def test_what_fails_is_marked(
    collector: Collector, nowhere_at_all: str, start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    gateway = start_gateway(nowhere_at_all, "--otlp-endpoint", collector.url)
    trace = secrets.token_hex(16)
    answer = gateway.analyze(photo, headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"})
    assert answer.status_code == 503
    gateway.stop()  # what is not sent yet is sent now
    names = {span.name: span for span in collector.wait_for(trace, lambda spans: len(spans) == 2)}
    assert set(names) == {"POST /analyze", "analyze photo"}
    assert int(names["POST /analyze"].attributes["http.response.status_code"]) == 503


def test_no_collector_is_no_trouble(
    server: Any, nowhere_at_all: str, start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    gateway = start_gateway(server.grpc_url, "--otlp-endpoint", nowhere_at_all.replace("grpc", "http"))
    for _ in range(3):
        assert gateway.analyze(photo).status_code == 200
    assert gateway.stop() == 0
    assert all("time" in line for line in gateway.log())


@pytest.fixture
def nowhere_at_all() -> Iterator[str]:
    """A URL without a server."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"grpc://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("", "collector:4318", "--otlp-endpoint is a URL such as http://localhost:4318"),
        ("sys.modules['opentelemetry.sdk'] = None; ", "http://localhost:4318", "pip install 'car-analyzer[tracing]'"),
    ],
)
def test_wrong_settings(program: str, words: str, message: str) -> None:
    code = f"import sys; {program}from car_analyzer._cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "gateway", "--port", "0", "--otlp-endpoint", words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
