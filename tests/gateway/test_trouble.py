"""The errors when Triton is down, full or slow, and the recovery of the same gateway."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import HeldModel, edit, until

from .conftest import HEALTHY, Gateway
from .test_refusals import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from car_analyzer_server import Server
    from reliability.proxy import Proxy


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_triton_stops_and_comes_back(
    protocol: str,
    repository: Path,
    start_triton: Callable[..., Server],
    start_gateway: Callable[..., Gateway],
    make_proxy: Callable[..., Proxy],
    photo: bytes,
) -> None:
    triton = start_triton(repository)
    # Keeps the port: another test might take it while no Triton uses it.
    proxy = make_proxy(getattr(triton, f"{protocol}_url")).listen()
    gateway = start_gateway(f"{protocol}://127.0.0.1:{proxy.port}")
    assert gateway.analyze(photo).status_code == 200
    triton.stop()
    proxy.refuse()
    response = gateway.analyze(photo)
    refused(response, 503, "The model server cannot be reached")
    assert int(response.headers["retry-after"]) > 0
    # Triton's address is only in the log.
    assert "127.0.0.1" not in response.text
    assert "127.0.0.1" in str(gateway.log_of(response.headers["x-request-id"]))
    assert gateway.health(503) == {"status": "unavailable", "error": "the model server cannot be reached"}
    settings = start_triton(repository).settings
    proxy.retarget(getattr(settings, f"{protocol}_port"))
    proxy.listen()
    assert gateway.health(200) == HEALTHY
    assert gateway.analyze(photo).status_code == 200
    assert gateway.metric("car_analyzer_errors_total", kind="bug") == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_triton_stops_under_load(
    protocol: str,
    repository: Path,
    start_triton: Callable[..., Server],
    start_gateway: Callable[..., Gateway],
    make_proxy: Callable[..., Proxy],
    photo: bytes,
) -> None:
    triton = start_triton(repository)
    proxy = make_proxy(getattr(triton, f"{protocol}_url")).listen()
    gateway = start_gateway(f"{protocol}://127.0.0.1:{proxy.port}", "--timeout", "10")
    ended = threading.Event()
    answers: Counter[int] = Counter()

    def ask(_: int) -> None:
        while not ended.is_set():
            response = gateway.analyze(photo)
            answers[response.status_code] += 1
            if response.status_code != 200:
                assert list(response.json()) == ["error", "code"]
                time.sleep(0.05)

    with ThreadPoolExecutor(16) as pool:
        asking = pool.map(ask, range(16))
        try:
            until(lambda: answers[200] > 16)
            triton.stop()
            proxy.refuse()
            until(lambda: answers[503])
            settings = start_triton(repository).settings
            proxy.retarget(getattr(settings, f"{protocol}_port"))
            proxy.listen()
            gateway.health(200)
            before = answers[200]
            until(lambda: answers[200] > before)
        finally:
            ended.set()
        list(asking)
    assert set(answers) <= {200, 502, 503, 504}, answers
    assert not [line for line in gateway.log() if "traceback" in line]


def test_a_full_queue(
    copy: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    def narrow(config: Any) -> None:
        config.dynamic_batching.default_queue_policy.max_queue_size = 1

    model = HeldModel(copy, "preprocess")
    edit(copy, "preprocess", narrow)
    # The number of attempts limits a rejected call, not its time.
    gateway = start_gateway(start_triton(copy).grpc_url, "--timeout", "600")
    with ThreadPoolExecutor(30) as pool:
        with model.held():
            answers = [pool.submit(gateway.analyze, photo) for _ in range(30)]
            # Nothing is answered meanwhile, so the first response is a rejection.
            refused(next(as_completed(answers)).result(), 503, "The service is busy")
        responses = [answer.result() for answer in answers]
    assert {response.status_code for response in responses} == {200, 503}
    for response in responses:
        if response.status_code == 503:
            refused(response, 503, "The service is busy")
            assert int(response.headers["retry-after"]) > 0
    assert gateway.analyze(photo).status_code == 200


def test_no_budget_in_time(server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes) -> None:
    size = len(photo) + 1000
    arguments = ["--timeout", "1", "--upload-timeout", "600", "--max-photo-bytes", size, "--max-held-bytes", size]
    gateway = start_gateway(server.grpc_url, *map(str, arguments))
    with socket.create_connection(("127.0.0.1", gateway.port)) as stalled:
        # An upload that never arrives has reserved the whole budget.
        stalled.sendall(
            f"POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        until(lambda: gateway.metric("car_analyzer_held_bytes") == size)
        with ThreadPoolExecutor(5) as pool:
            for response in pool.map(lambda _: gateway.analyze(photo), range(5)):
                refused(response, 503, "The service is busy")
    until(lambda: gateway.metric("car_analyzer_held_bytes") == 0)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_slow_model(
    protocol: str,
    copy: Path,
    start_triton: Callable[..., Server],
    start_gateway: Callable[..., Gateway],
    photo: bytes,
) -> None:
    model = HeldModel(copy, "condition")
    gateway = start_gateway(getattr(start_triton(copy), f"{protocol}_url"), "--timeout", "1")
    gateway.health(200)
    with model.held():
        refused(gateway.analyze(photo), 504, "There was no answer within 1 seconds.")
        refused(gateway.analyze(photo, photo), 504, "There was no answer within 1 seconds.")
    assert gateway.metric("car_analyzer_errors_total", kind="deadline") == 2
    assert gateway.metric("car_analyzer_held_bytes") == 0


def test_a_broken_model(
    copy: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    file = HeldModel(copy, "condition").file
    file.write_text(file.read_text().replace("return [", "raise RuntimeError('secret details')\n        return ["))
    gateway = start_gateway(start_triton(copy).grpc_url)
    response = gateway.analyze(photo)
    refused(response, 502, "The model server failed on this photo.")
    assert "secret details" in str(gateway.log_of(response.headers["x-request-id"]))


def test_an_unsuitable_model(
    copy: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    edit(copy, "car_analyzer", lambda config: config.parameters.pop("heads"))
    gateway = start_gateway(start_triton(copy).grpc_url)
    refused(gateway.analyze(photo), 502, "a model that this gateway cannot read")


def test_a_model_that_is_not_loaded(
    repository: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    triton = start_triton(repository)
    triton.unload("car_analyzer")
    gateway = start_gateway(triton.grpc_url)
    response = gateway.http.get("/health")
    assert response.status_code == 503
    assert response.json()["status"] == "unavailable"
    assert "car_analyzer" in response.json()["error"]
    refused(gateway.analyze(photo), 503, "The model is not loaded")


def test_request_ids_reach_triton(
    copy: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    model = HeldModel(copy, "condition")
    gateway = start_gateway(start_triton(copy).grpc_url)
    response = gateway.analyze(photo, photo, headers={"X-Request-ID": "order-7"})
    assert response.headers["x-request-id"] == "order-7"
    assert sorted(model.requests) == ["order-7", "order-7-2"]
    made = gateway.analyze(photo).headers["x-request-id"]
    assert model.requests[-1] == made


def test_triton_may_start_later(
    repository: Path,
    start_triton: Callable[..., Server],
    start_gateway: Callable[..., Gateway],
    make_proxy: Callable[..., Proxy],
    photo: bytes,
) -> None:
    proxy = make_proxy("grpc://127.0.0.1:0")  # does not listen yet
    gateway = start_gateway(f"grpc://127.0.0.1:{proxy.port}")
    assert gateway.http.get("/health").status_code == 503
    assert gateway.log()[0]["message"] == "Triton is not ready yet"
    proxy.retarget(start_triton(repository).settings.grpc_port)
    proxy.listen()
    gateway.health(200)
    assert gateway.analyze(photo).status_code == 200
