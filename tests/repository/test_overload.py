"""More than the service can take is refused cleanly, and every request gets an answer."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from car_analyzer_server import Server, Settings
from reliability.overload import pending_requests
from tests.conftest import PATIENCE_S, SMALL_TRITON, HeldModel, edit, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALL = 40


@contextlib.contextmanager
def flooded(
    model: HeldModel, repository: Path, photo: bytes
) -> Iterator[tuple[list[Future[str]], Callable[[], dict[str, int]]]]:
    """Sends requests, all at once, while a model is held; what becomes of each, and how many wait for each model."""
    with Server(Settings(repository, **SMALL_TRITON)) as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url.partition("://")[2])

        def send(_number: int) -> str:
            image = tritonclient.grpc.InferInput("image", [1, 1], "BYTES")
            image.set_data_from_numpy(np.array([[photo]], dtype=object))
            try:
                client.infer("car_analyzer", [image], client_timeout=PATIENCE_S)
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"
            return "ok"

        with ThreadPoolExecutor(ALL) as pool, model.held():
            yield [pool.submit(send, number) for number in range(ALL)], lambda: pending_requests(server.metrics_url)
        # Whatever happened, the next photo is served.
        assert send(0) == "ok"
        client.close()


def test_a_full_queue_refuses_at_once(copy: Path, sample_photos: list[Path]) -> None:
    def narrow(config: Any) -> None:
        policy = config.dynamic_batching.default_queue_policy
        policy.max_queue_size, policy.default_timeout_microseconds = 2, 0

    model = HeldModel(copy, "preprocess")
    edit(copy, "preprocess", narrow)
    with flooded(model, copy, sample_photos[0].read_bytes()) as (sent, _):
        # Nothing is answered meanwhile: one is worked on, two wait, and Triton itself keeps a few.
        first = [request.result() for request in islice(as_completed(sent), ALL - 10)]
    answers = [request.result() for request in sent]
    refused = [answer for answer in answers if answer != "ok"]
    assert "ok" not in first
    assert 3 <= answers.count("ok") <= 10
    assert all("UNAVAILABLE" in answer and "exceeds maximum queue size" in answer.lower() for answer in refused)


def test_a_slow_head_refuses_what_waited_too_long(copy: Path, sample_photos: list[Path]) -> None:
    def hasty(config: Any) -> None:
        config.dynamic_batching.default_queue_policy.default_timeout_microseconds = 500_000

    model = HeldModel(copy, "condition")
    edit(copy, "condition", hasty)
    with flooded(model, copy, sample_photos[0].read_bytes()) as (sent, pending):
        until(lambda: pending().get("condition", 0) > 10)
        time.sleep(0.6)  # longer than they may wait
    answers = [request.result() for request in sent]
    refused = [answer for answer in answers if answer != "ok"]
    assert 1 <= answers.count("ok") < ALL
    assert all("UNAVAILABLE" in answer and "timeout expired" in answer.lower() for answer in refused), refused
