"""More than the service can take is refused cleanly, and every request gets an answer."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from car_analyzer_server import Server, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLOW_HEAD = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.2)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("logits", np.zeros((1, 2), np.float32))]) for _ in requests]
"""


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    return shutil.copytree(repository, tmp_path / "model_repository")


def edit(repository: Path, model: str, change: Callable[[Any], None]) -> None:
    file = repository / model / "config.pbtxt"
    config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    change(config)
    file.write_text(text_format.MessageToString(config))


def flood(repository: Path, photo: bytes, requests: int) -> list[str]:
    """Sends all requests at once; the status of each."""
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)) as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url.partition("://")[2])

        def send(_number: int) -> str:
            image = tritonclient.grpc.InferInput("image", [1, 1], "BYTES")
            image.set_data_from_numpy(np.array([[photo]], dtype=object))
            try:
                client.infer("car_analyzer", [image], client_timeout=60)
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"
            return "ok"

        with ThreadPoolExecutor(requests) as pool:
            answers = list(pool.map(send, range(requests)))
        # Whatever happened, the next photo is served.
        assert send(0) == "ok"
        client.close()
    return answers


def test_a_full_queue_refuses_at_once(copy: Path) -> None:
    def narrow(config: Any) -> None:
        config.dynamic_batching.default_queue_policy.max_queue_size = 2
        config.max_batch_size = 1

    edit(copy, "preprocess", narrow)
    edit(copy, "car_analyzer", lambda config: setattr(config, "max_batch_size", 1))
    buffer = io.BytesIO()
    Image.effect_noise((3000, 2000), 80).save(buffer, "PNG", compress_level=1)
    answers = flood(copy, buffer.getvalue(), 40)
    refused = [answer for answer in answers if answer != "ok"]
    assert 2 <= answers.count("ok") < 40
    assert all("UNAVAILABLE" in answer and "exceeds maximum queue size" in answer.lower() for answer in refused)


def test_a_slow_head_refuses_what_waited_too_long(copy: Path, sample_photos: list[Path]) -> None:
    def slow(config: Any) -> None:
        config.backend = "python"
        config.max_batch_size = 1
        del config.dynamic_batching.preferred_batch_size[:], config.model_warmup[:]
        config.dynamic_batching.default_queue_policy.default_timeout_microseconds = 500_000

    edit(copy, "condition", slow)
    edit(copy, "car_analyzer", lambda config: setattr(config, "max_batch_size", 1))
    (copy / "condition" / "1" / "model.py").write_text(SLOW_HEAD)
    answers = flood(copy, sample_photos[0].read_bytes(), 40)
    refused = [answer for answer in answers if answer != "ok"]
    assert 1 <= answers.count("ok") < 40
    assert all("UNAVAILABLE" in answer and "timeout expired" in answer.lower() for answer in refused), refused
