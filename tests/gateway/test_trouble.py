"""What callers hear when Triton is down, full or slow, and that the same gateway answers again afterwards."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Gateway, edit, slow_down
from .test_refusals import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from car_analyzer_server import Server


def wait_for_health(gateway: Gateway, status: int) -> Any:
    deadline = time.monotonic() + 30
    while (response := gateway.http.get("/health")).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.1)
    return response.json()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_triton_stops_and_comes_back(
    protocol: str,
    repository: Path,
    start_triton: Callable[..., Server],
    start_gateway: Callable[..., Gateway],
    photo: bytes,
) -> None:
    triton = start_triton(repository)
    gateway = start_gateway(getattr(triton, f"{protocol}_url"))
    assert gateway.analyze(photo).status_code == 200
    triton.stop()
    response = gateway.analyze(photo)
    refused(response, 503, "The model server cannot be reached")
    assert int(response.headers["retry-after"]) > 0
    # Where Triton is stands in the log, and nowhere else.
    assert "127.0.0.1" not in response.text
    assert "127.0.0.1" in str(gateway.log_of(response.headers["x-request-id"]))
    health = wait_for_health(gateway, 503)
    assert health == {"status": "unavailable", "error": "the model server cannot be reached"}
    settings = triton.settings
    start_triton(repository, http_port=settings.http_port, grpc_port=settings.grpc_port)
    assert wait_for_health(gateway, 200) == {"status": "OK"}
    assert gateway.analyze(photo).status_code == 200
    assert gateway.metric("car_analyzer_errors_total", kind="bug") == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_triton_stops_under_load(
    protocol: str,
    repository: Path,
    start_triton: Callable[..., Server],
    start_gateway: Callable[..., Gateway],
    photo: bytes,
) -> None:
    triton = start_triton(repository)
    gateway = start_gateway(getattr(triton, f"{protocol}_url"), "--timeout", "10")
    ended = threading.Event()
    answers: Counter[int] = Counter()
    longest = 0.0

    def ask(_: int) -> None:
        nonlocal longest
        while not ended.is_set():
            started = time.monotonic()
            response = gateway.analyze(photo)
            longest = max(longest, time.monotonic() - started)
            answers[response.status_code] += 1
            if response.status_code != 200:
                assert list(response.json()) == ["error"]
                time.sleep(0.05)

    with ThreadPoolExecutor(16) as pool:
        asking = pool.map(ask, range(16))
        try:
            time.sleep(1)
            triton.stop()
            time.sleep(1)
            settings = triton.settings
            start_triton(repository, http_port=settings.http_port, grpc_port=settings.grpc_port)
            wait_for_health(gateway, 200)
            before = answers[200]
            time.sleep(1)
        finally:
            ended.set()
        list(asking)
    assert answers[200] > before > 0
    assert answers[503] > 0
    assert set(answers) <= {200, 502, 503, 504}, answers
    assert longest < 15
    assert not [line for line in gateway.log() if "traceback" in line]


def test_a_full_queue(
    copy: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], large_photo: bytes
) -> None:
    def narrow(config: Any) -> None:
        config.dynamic_batching.default_queue_policy.max_queue_size = 1
        config.max_batch_size = 1
        config.instance_group[0].count = 1

    edit(copy, "preprocess", narrow)
    edit(copy, "car_analyzer", lambda config: setattr(config, "max_batch_size", 1))
    gateway = start_gateway(start_triton(copy).grpc_url, "--max-held-bytes", "500MB")
    with ThreadPoolExecutor(30) as pool:
        responses = list(pool.map(lambda _: gateway.analyze(large_photo), range(30)))
    assert {response.status_code for response in responses} == {200, 503}
    for response in responses:
        if response.status_code == 503:
            refused(response, 503, "The service is busy")
            assert int(response.headers["retry-after"]) > 0
    assert gateway.analyze(large_photo).status_code == 200


def test_no_room_in_time(
    copy: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    slow_down(copy, 0.7)
    size = str(len(photo) + 1000)
    arguments = ["--timeout", "1.5", "--max-photo-bytes", size, "--max-held-bytes", size]
    gateway = start_gateway(start_triton(copy).grpc_url, *arguments)
    with ThreadPoolExecutor(5) as pool:
        responses = list(pool.map(lambda _: gateway.analyze(photo), range(5)))
    statuses = Counter(response.status_code for response in responses)
    # One after the other: what is not read yet hears that there is no room, what is cut short that time is over.
    assert statuses[200] >= 1
    assert statuses[503] >= 2
    assert set(statuses) <= {200, 503, 504}
    assert gateway.metric("car_analyzer_held_bytes") == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_slow_model(
    protocol: str,
    copy: Path,
    start_triton: Callable[..., Server],
    start_gateway: Callable[..., Gateway],
    photo: bytes,
) -> None:
    slow_down(copy, 3)
    gateway = start_gateway(getattr(start_triton(copy), f"{protocol}_url"), "--timeout", "1")
    started = time.monotonic()
    refused(gateway.analyze(photo), 504, "There was no answer within 1 seconds.")
    refused(gateway.analyze(photo, photo), 504, "There was no answer within 1 seconds.")
    assert time.monotonic() - started < 5
    assert gateway.metric("car_analyzer_errors_total", kind="deadline") == 2
    assert gateway.metric("car_analyzer_held_bytes") == 0


def test_a_broken_model(
    copy: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    slow_down(copy, 0)
    model = copy / "condition" / "1" / "model.py"
    model.write_text(model.read_text().replace("time.sleep(0)", "raise RuntimeError('secret details')"))
    gateway = start_gateway(start_triton(copy).grpc_url)
    response = gateway.analyze(photo)
    refused(response, 502, "The model server failed on this photo.")
    assert "secret details" in str(gateway.log_of(response.headers["x-request-id"]))


def test_a_model_of_another_make(
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
    names = slow_down(copy, 0)
    gateway = start_gateway(start_triton(copy).grpc_url)
    response = gateway.analyze(photo, photo, headers={"X-Request-ID": "order-7"})
    assert response.headers["x-request-id"] == "order-7"
    assert sorted(names.read_text().split()) == ["order-7", "order-7-2"]
    made = gateway.analyze(photo).headers["x-request-id"]
    assert names.read_text().split()[-1] == made


def test_triton_may_start_later(
    repository: Path, start_triton: Callable[..., Server], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    triton = start_triton(repository)
    settings = triton.settings
    triton.stop()
    gateway = start_gateway(triton.grpc_url)
    assert gateway.http.get("/health").status_code == 503
    assert gateway.log()[0]["message"] == "Triton is not ready yet"
    start_triton(repository, http_port=settings.http_port, grpc_port=settings.grpc_port)
    wait_for_health(gateway, 200)
    assert gateway.analyze(photo).status_code == 200
