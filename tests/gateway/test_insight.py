"""What operators and integrators see: logs, metrics, the OpenAPI document, and the page at /."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from car_analyzer import Analysis, Head
from car_analyzer_gateway._byte_budget import ByteBudget
from car_analyzer_gateway._metrics import Metrics
from car_analyzer_gateway._static import static_routes

from .conftest import Gateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace


def test_a_request_is_one_line_in_the_log(gateway: Gateway, photo: bytes) -> None:
    response = gateway.analyze(photo, headers={"X-Request-ID": "abc-123"})
    assert response.headers["x-request-id"] == "abc-123"
    (line,) = gateway.log_of("abc-123")
    assert line["message"] == "request"
    assert (line["method"], line["path"], line["status"], line["photos"]) == ("POST", "/analyze", 200, 1)
    assert line["bytes_in"] > len(photo)
    assert line["milliseconds"] > 0
    assert line["time"].endswith("+00:00")
    bad = gateway.analyze(b"no photo")
    (line,) = gateway.log_of(bad.headers["x-request-id"])
    assert (line["status"], line["error"]) == (400, "photo")
    assert "not a photo" in line["reason"]


def test_answers_in_the_access_log(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    gateway = start_gateway(server.grpc_url, "--access-log", "answers")
    answers = gateway.analyze(photo, b"no photo", photo, headers={"X-Request-ID": "three"})
    (line,) = gateway.log_of("three")
    assert line["answers"] == answers.json()
    assert line["photo_bytes"] == [len(photo), len(b"no photo"), len(photo)]
    assert (line["model_version"], line["export_id"]) == ("1", answers.headers["export-id"])
    bad = gateway.analyze(b"no photo", headers={"X-Request-ID": "bad"})
    (line,) = gateway.log_of("bad")
    assert line["answers"] == [bad.json()]
    assert (line["photo_bytes"], line["code"]) == ([8], "photo.invalid")


def test_without_an_access_log(server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes) -> None:
    gateway = start_gateway(server.grpc_url, CAR_ANALYZER_ACCESS_LOG="off")
    assert gateway.analyze(photo).status_code == 200
    assert gateway.analyze(b"no photo").status_code == 400
    gateway.stop()
    assert not [line for line in gateway.log() if line["message"] == "request"]


@pytest.mark.parametrize("strange", ["", "a b", "x" * 129, 'a"b', "a;b", "<b>"])
def test_a_strange_request_id_is_replaced(gateway: Gateway, strange: str) -> None:
    given = gateway.http.get("/health", headers={"X-Request-ID": strange}).headers["x-request-id"]
    assert given != strange
    assert len(given) == 32


def test_errors_have_the_id_too(gateway: Gateway) -> None:
    for path in ("/nothing", "/analyze"):
        assert gateway.http.get(path, headers={"X-Request-ID": "mine"}).headers["x-request-id"] == "mine"


def test_health_checks_do_not_fill_the_log(server: SimpleNamespace, start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(server.grpc_url)
    gateway.http.get("/health")
    gateway.http.get("/metrics")
    # On a busy machine a check may fail, which is logged.
    assert not [line for line in gateway.log() if line.get("status") == 200]


def test_a_bug_is_a_500_without_insides(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes, tmp_path: Path
) -> None:
    # Python runs this module first, and it breaks what the gateway relies on.
    (tmp_path / "sitecustomize.py").write_text(
        "import car_analyzer\n"
        "async def broken(*_, **__): raise ZeroDivisionError('very secret')\n"
        "car_analyzer.AsyncCarAnalyzer.analyze = broken\n"
    )
    gateway = start_gateway(server.grpc_url, PYTHONPATH=str(tmp_path))
    response = gateway.analyze(photo)
    assert response.status_code == 500
    assert list(response.json()) == ["error", "code"]
    assert "secret" not in response.text
    line = gateway.log_of(response.headers["x-request-id"])[0]
    assert "very secret" in line["traceback"]
    assert gateway.metric("car_analyzer_errors_total", kind="bug") == 1


def test_metrics_count_what_happened(
    server: SimpleNamespace, start_gateway: Callable[..., Gateway], sample_photos: list[Path]
) -> None:
    gateway = start_gateway(server.grpc_url)
    answers = [gateway.analyze(path.read_bytes()).json() for path in sample_photos]
    gateway.analyze(b"no photo")
    gateway.analyze(sample_photos[0].read_bytes(), b"no photo")
    gateway.http.get("/nothing")
    gateway.http.request("PROPFIND", "/analyze")
    ok, bad = {"path": "/analyze", "method": "POST", "status": "200"}, {"path": "/analyze", "status": "400"}
    assert gateway.metric("car_analyzer_requests_total", **ok) == len(answers) + 1
    assert gateway.metric("car_analyzer_requests_total", **bad) == 1
    assert gateway.metric("car_analyzer_requests_total", path="other", status="404") == 1
    assert gateway.metric("car_analyzer_requests_total", method="other", status="405") == 1
    assert gateway.metric("car_analyzer_request_seconds_count", path="/analyze") == len(answers) + 3
    assert gateway.metric("car_analyzer_errors_total", kind="photo") == 2
    assert gateway.metric("car_analyzer_errors_total", kind="not_found") == 1
    assert gateway.metric("car_analyzer_analysis_seconds_count") == len(answers) + 1
    assert gateway.metric("car_analyzer_photo_bytes_count") == len(answers) + 3
    assert gateway.metric("car_analyzer_requests_in_flight") == 1  # the one for the metrics
    for head in ("cleanliness", "condition"):
        given = [answer[head] for answer in [*answers, answers[0]]]
        for label in set(given):
            assert gateway.metric("car_analyzer_answers_total", head=head, label=label) == given.count(label)
        assert gateway.metric("car_analyzer_confidence_count", head=head) == len(given)
    assert gateway.metric("process_resident_memory_bytes") > 0


def test_labels_that_do_not_exclude_each_other_count_one_by_one() -> None:
    metrics = Metrics(ByteBudget(1))
    for labels in (("dent", "scratch"), ("dent",), ("scratch", "glass"), ()):
        head = Head(", ".join(labels), 0.9, {}, (), labels)
        metrics.count_analysis(Analysis({"damage": head, "condition": Head("intact", 0.9, {}, ())}, 1.0))
    (answers,) = (metric for metric in metrics.registry.collect() if metric.name == "car_analyzer_answers")
    counts = {tuple(one.labels.values()): one.value for one in answers.samples if one.name.endswith("_total")}
    assert counts == {
        ("damage", "dent"): 2,
        ("damage", "scratch"): 2,
        ("damage", "glass"): 1,
        ("damage", "none"): 1,
        ("condition", "intact"): 4,
    }


def test_openmetrics_on_request(gateway: Gateway) -> None:
    response = gateway.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_the_service_conforms_to_its_openapi_document(gateway: Gateway, tmp_path: Path) -> None:
    # On a busy machine a health check may time out and return 503. Parameter values include tiny timeouts.
    (tmp_path / "schemathesis.toml").write_text(
        '[[operations]]\ninclude-path = "/health"\n'
        'checks.not_a_server_error.expected-statuses = ["2xx", "4xx", "503"]\n'
        '[[operations]]\ninclude-path = "/analyze"\n'
        'checks.not_a_server_error.expected-statuses = ["2xx", "4xx", "504"]\n'
    )
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance"
    checks += ",response_schema_conformance,unsupported_method"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json"]
    command += ["--checks", checks, "--max-examples", "20", "--generation-database", "none", "--no-color"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_error_is_in_the_document(gateway: Gateway) -> None:
    document = gateway.http.get("/openapi.json").json()
    responses = document["paths"]["/analyze"]["post"]["responses"]
    assert set(responses) == {"200", "400", "408", "413", "415", "500", "502", "503", "504"}
    assert "Retry-After" in responses["503"]["headers"]


def test_the_docs_need_nothing_from_elsewhere(gateway: Gateway) -> None:
    response = gateway.http.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "POST /analyze" in response.text
    assert "src=" not in response.text
    assert "<script" not in response.text
    assert "'unsafe" not in response.headers["content-security-policy"]


def test_the_page(gateway: Gateway) -> None:
    response = gateway.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    again = gateway.http.get("/", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert gateway.http.head("/").headers["content-length"] == str(len(response.content))
    assert gateway.http.get("/index.html").text == response.text


def test_files_of_a_page_have_their_types(tmp_path: Path) -> None:
    for name in ("index.html", "assets/page.js", "assets/style.css", "logo.svg", "data.json", "icon.png", "a.woff2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    paths = {route.path for route in static_routes(tmp_path)}
    assert paths == {
        "/",
        "/index.html",
        "/assets/page.js",
        "/assets/style.css",
        "/logo.svg",
        "/data.json",
        "/icon.png",
        "/a.woff2",
    }


def test_only_the_sdk_is_imported_from_other_rooms() -> None:
    code = (
        "import sys, json, car_analyzer_gateway._cli, car_analyzer._transports.grpc, car_analyzer._transports.http;"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    modules = json.loads(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
    assert "car_analyzer" in modules
    assert not {"PIL", "torch", "onnx", "onnxruntime", "car_analyzer_export", "car_analyzer_server"} & set(modules)
