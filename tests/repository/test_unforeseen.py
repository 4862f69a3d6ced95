"""An error of the preprocess step that nobody foresaw: a sentence for the client, and the facts for the operator."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from car_analyzer_server import Server, Settings
from reliability.known import known_photos
from reliability.photos.ask import Asker
from tests.conftest import until

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
def asker(repository: Path, tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Asker]:
    copy = shutil.copytree(repository, tmp_path_factory.mktemp("faulty") / "model_repository")
    with (copy / "preprocess" / "1" / "photo.py").open("a") as file:
        file.write(FAULTS)
    settings = Settings(copy, http_port=0, grpc_port=0, metrics_port=0, arguments=(f"--log-file={log}",))
    with Server(settings) as server, Asker(server) as asker:
        yield asker


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("photo", "kind", "fact"),
    [(b"index", "IndexError", "list index out of range"), (b"key", "KeyError", "/srv/secret/place")],
)
def test_the_client_gets_a_sentence_and_the_operator_the_facts(
    asker: Asker, log: Path, protocol: str, photo: bytes, kind: str, fact: str
) -> None:
    before = len(log.read_text())

    def logged() -> list[str]:
        return [line for line in log.read_text()[before:].splitlines() if "failed unexpectedly" in line]

    # Anything but INVALID_ARGUMENT or 400 would raise.
    assert asker.ask(protocol, photo) == f"in ensemble 'car_analyzer', {ANSWER}"
    until(lambda: bool(logged()))  # Triton writes it beside the answer
    (line,) = logged()
    assert f"A photo of {len(photo)} bytes failed unexpectedly: {kind} " in line
    assert fact in line
    assert "model.py:" in line
    assert "photo.py:" in line


def test_it_fails_its_own_request_only(asker: Asker) -> None:
    known = known_photos()[0]
    answer = asker.ask("grpc", known.photo, b"key", known.photo)
    assert answer == f"in ensemble 'car_analyzer', Photo 2 of 3: {ANSWER}"
    found = asker.ask("grpc", known.photo)
    assert not isinstance(found, str)
    assert known.agrees(found[0])
