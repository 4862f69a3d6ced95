"""The ensemble on a real Triton: parity with PyTorch over both protocols, and errors that stay with their request."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils

from reliability.reference import reference_logits
from tests.repository.test_preprocess import PHOTOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import SimpleNamespace

HEADS = ("cleanliness", "condition")


@pytest.fixture(params=["grpc", "http"])
def infer(request: pytest.FixtureRequest, server: SimpleNamespace) -> Iterator[Callable[..., dict[str, Any]]]:
    """Sends photos as one batch with NVIDIA's own client: head → logits [photos, classes]."""
    protocol = tritonclient.grpc if request.param == "grpc" else tritonclient.http
    address = getattr(server, f"{request.param}_url").partition("://")[2]
    client = protocol.InferenceServerClient(address)

    def send(*photos: bytes) -> dict[str, Any]:
        image = protocol.InferInput("image", [len(photos), 1], "BYTES")
        image.set_data_from_numpy(np.array(photos, dtype=object).reshape(-1, 1))
        answer = client.infer("car_analyzer", [image])
        return {head: answer.as_numpy(f"{head}_logits") for head in HEADS}

    yield send
    client.close()


def assert_parity(served: dict[str, Any], expected: dict[str, list[float]]) -> None:
    for head in HEADS:
        np.testing.assert_allclose(served[head], expected[head], atol=1e-3)
        assert np.argmax(served[head]) == np.argmax(expected[head])


def test_parity_on_every_sample_photo(infer: Any, sample_photos: list[Path], reference: Any) -> None:
    assert len(sample_photos) == 8
    for photo in sample_photos:
        content = photo.read_bytes()
        assert_parity({head: logits[0] for head, logits in infer(content).items()}, reference(content))


def test_parity_on_every_real_photo(infer: Any, real_photos: list[Path], reference: Any) -> None:
    for photo in real_photos:
        content = photo.read_bytes()
        assert_parity({head: logits[0] for head, logits in infer(content).items()}, reference(content))


def test_shortcuts_move_logits_of_real_photos_by_little(infer: Any, real_photos: list[Path]) -> None:
    # Fast resampling changes their pixels by 0.15 of 255 on average, 1 at most, and the logits by up to 0.025.
    for photo in real_photos:
        content = photo.read_bytes()
        served, trained = infer(content), reference_logits(content, exact=True)
        for head in HEADS:
            np.testing.assert_allclose(served[head][0], trained[head], atol=0.04)


@pytest.mark.parametrize("name", PHOTOS)
def test_parity_on_every_format(infer: Any, name: str, reference: Any) -> None:
    assert_parity({head: logits[0] for head, logits in infer(PHOTOS[name]).items()}, reference(PHOTOS[name]))


def test_parity_in_a_batch(infer: Any, sample_photos: list[Path], reference: Any) -> None:
    photos = [photo.read_bytes() for photo in sample_photos] * 4
    served = infer(*photos)
    for row, photo in enumerate(photos):
        assert_parity({head: served[head][row] for head in HEADS}, reference(photo))


def test_a_bad_photo_in_a_batch_is_named(infer: Any, sample_photos: list[Path]) -> None:
    good = sample_photos[0].read_bytes()
    with pytest.raises(Exception, match="Photo 2 of 3: The photo is empty"):
        infer(good, b"", good)


def test_bad_photos_do_not_touch_their_neighbours(
    server: SimpleNamespace, sample_photos: list[Path], reference: Any
) -> None:
    good = sample_photos[0].read_bytes()
    bad = [b"", b"text", good[: len(good) // 2], b"\xff\xd8\xff" + b"\0" * 100]
    client = tritonclient.grpc.InferenceServerClient(server.grpc_url.partition("://")[2])
    expected = reference(good)

    def send(number: int) -> str:
        photo = bad[number // 2 % len(bad)] if number % 2 else good
        image = tritonclient.grpc.InferInput("image", [1, 1], "BYTES")
        image.set_data_from_numpy(np.array([[photo]], dtype=object))
        try:
            answer = client.infer("car_analyzer", [image])
        except tritonclient.utils.InferenceServerException as error:
            return str(error.status())
        assert_parity({head: answer.as_numpy(f"{head}_logits")[0] for head in HEADS}, expected)
        return "right"

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(send, range(160)))
    client.close()
    assert results == ["right", "StatusCode.INVALID_ARGUMENT"] * 80


def post(server: SimpleNamespace, body: bytes) -> tuple[int, bytes]:
    """As `curl --data-binary` does it: the photo is the whole body."""
    request = urllib.request.Request(
        f"{server.http_url}/v2/models/car_analyzer/infer",
        data=body,
        headers={"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_raw_body_is_a_photo(server: SimpleNamespace, sample_photos: list[Path]) -> None:
    status, body = post(server, sample_photos[0].read_bytes())
    assert status == 200
    assert b"cleanliness_logits" in body
    assert b"condition_logits" in body


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (b"this is a text file\n", "send JPEG, PNG"),
        (b"\0" * 20_000_001, "has 20,000,001 bytes; at most 20,000,000"),
        (PHOTOS["jpeg"][:-300], "damaged"),
    ],
)
def test_a_bad_raw_body_is_a_400(server: SimpleNamespace, photo: bytes, message: str) -> None:
    status, body = post(server, photo)
    assert status == 400
    assert message in json.loads(body)["error"]


def test_labels_come_with_tritons_classification_extension(server: SimpleNamespace, sample_photos: list[Path]) -> None:
    client = tritonclient.grpc.InferenceServerClient(server.grpc_url.partition("://")[2])
    image = tritonclient.grpc.InferInput("image", [1, 1], "BYTES")
    photo = next(photo for photo in sample_photos if photo.name.startswith("dirty_intact"))
    image.set_data_from_numpy(np.array([[photo.read_bytes()]], dtype=object))
    outputs = [tritonclient.grpc.InferRequestedOutput(f"{head}_logits", class_count=1) for head in HEADS]
    answer = client.infer("car_analyzer", [image], outputs=outputs)
    labels = [answer.as_numpy(f"{head}_logits")[0][0].decode().split(":")[2] for head in HEADS]
    client.close()
    assert labels == ["dirty", "intact"]
