"""What the preprocess step logs: an error that nobody foresaw, which is a sentence for the client, and each photo."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from car_analyzer_server import Server, Settings
from reliability.reference import reference_photos
from reliability.triton_client import TritonClient
from tests.conftest import SMALL_TRITON, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Appended to the step: two ways to fail that the step knows nothing of.
FAULTS = """

_header_before = header


def header(content, *limits):
    if content == b"index":
        return [][0]
    if content == b"key":
        raise KeyError("/srv/secret/place\\nsecond line")
    return _header_before(content, *limits)
"""
ANSWER = "The photo cannot be processed; the reason is in the server's log. Save the photo again in another way."


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "triton.log"


@pytest.fixture(scope="module")
def client(repository: Path, tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[TritonClient]:
    copy = shutil.copytree(repository, tmp_path_factory.mktemp("faulty") / "model_repository")
    with (copy / "preprocess" / "1" / "photo.py").open("a") as file:
        file.write(FAULTS)
    settings = Settings(copy, log_photos=True, arguments=(f"--log-file={log}",), **SMALL_TRITON)
    with Server(settings) as server, TritonClient(server) as client:
        yield client


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("photo", "kind", "fact"),
    [(b"index", "IndexError", "list index out of range"), (b"key", "KeyError", "/srv/secret/place")],
)
def test_the_client_gets_a_sentence_and_the_operator_the_facts(
    client: TritonClient, log: Path, protocol: str, photo: bytes, kind: str, fact: str
) -> None:
    before = len(log.read_text())

    def logged() -> list[str]:
        return [line for line in log.read_text()[before:].splitlines() if "failed unexpectedly" in line]

    # Anything but INVALID_ARGUMENT or 400 would raise.
    assert client.infer(protocol, photo) == f"in ensemble 'car_analyzer', {ANSWER}"
    until(lambda: bool(logged()))  # Triton writes it beside the answer
    (line,) = logged()
    assert f"A photo of {len(photo)} bytes failed unexpectedly: {kind} " in line
    assert fact in line
    assert "model.py:" in line
    assert "photo.py:" in line


def test_it_fails_its_own_request_only(client: TritonClient) -> None:
    expected = reference_photos()[0]
    answer = client.infer("grpc", expected.content, b"key", expected.content)
    assert answer == f"in ensemble 'car_analyzer', Photo 2 of 3: {ANSWER}"
    found = client.infer("grpc", expected.content)
    assert not isinstance(found, str)
    assert expected.matches(found[0])


def test_each_photo_is_a_line(client: TritonClient, log: Path) -> None:
    before = len(log.read_text())
    photo = reference_photos()[0].content
    with Image.open(io.BytesIO(photo)) as image:
        facts = f"result=ok format={image.format} width={image.width} height={image.height}"
    for content in (photo, b"not\na photo"):
        client.infer("grpc", content)

    def logged() -> list[str]:
        return [line for line in log.read_text()[before:].splitlines() if '"photo request_id=' in line]

    until(lambda: len(logged()) == 2)
    accepted, rejected = logged()
    assert f" bytes={len(photo)} milliseconds=" in accepted
    assert facts in accepted
    assert " bytes=11 milliseconds=" in rejected
    assert " result=rejected reason='The file is not a photo" in rejected
