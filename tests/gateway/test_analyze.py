"""Clients of the old service get the same answers from the new one, with every HTTP library."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer import CarAnalyzer

from .conftest import HEALTHY, Gateway, make_form

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

KEYS = ["cleanliness", "cleanlinessConfidence", "condition", "conditionConfidence", "processingTime"]
NOT_A_PHOTO = "The file is not a photo that can be read"

NODE = """
const { readFileSync } = require("node:fs");
const form = new FormData();
for (const path of process.argv.slice(2)) form.append("image", new Blob([readFileSync(path)]), "car.jpg");
fetch(process.env.URL_TO_ASK, { method: "POST", body: form })
  .then(async (response) => console.log(JSON.stringify([response.status, await response.json()])));
"""


def ask_with_node(url: str, *photos: Path) -> list[Any]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version[1:].split(".")[0]) < 18:
        pytest.skip(f"Node {version} has no fetch")
    command = [node, "-", *map(str, photos)]
    ran = subprocess.run(
        command, input=NODE, env={"URL_TO_ASK": f"{url}/analyze"}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    answer: list[Any] = json.loads(ran.stdout)
    return answer


def ask_with_curl(url: str, *arguments: str) -> tuple[int, Any]:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    command = [curl, "--silent", "--show-error", "--write-out", "\n%{http_code}", *arguments, f"{url}/analyze"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    body, _, status = ran.stdout.rpartition("\n")
    return int(status), json.loads(body)


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["processingTime"] > 0
    return {name: value for name, value in answer.items() if name != "processingTime"}


@pytest.fixture(scope="module")
def expected(server: SimpleNamespace, sample_photos: list[Path]) -> list[dict[str, Any]]:
    with CarAnalyzer(server.grpc_url) as analyzer:
        return [timeless(analyzer.analyze(path).to_dict()) for path in sample_photos]


def test_a_form_with_a_photo(gateway: Gateway, sample_photos: list[Path], expected: list[dict[str, Any]]) -> None:
    for path, answer in zip(sample_photos, expected, strict=True):
        response = gateway.analyze(path.read_bytes())
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert list(response.json()) == KEYS
        assert timeless(response.json()) == answer


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_both_protocols(
    protocol: str,
    server: SimpleNamespace,
    start_gateway: Callable[..., Gateway],
    photo: bytes,
    expected: list[dict[str, Any]],
) -> None:
    gateway = start_gateway(getattr(server, f"{protocol}_url"))
    assert timeless(gateway.analyze(photo).json()) == expected[0]
    assert gateway.health(200) == HEALTHY


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/anything", "application/octet-stream", "IMAGE/JPEG; q=1"])
def test_a_photo_as_the_body(gateway: Gateway, photo: bytes, expected: list[dict[str, Any]], media_type: str) -> None:
    response = gateway.http.post("/analyze", content=photo, headers={"Content-Type": media_type})
    assert timeless(response.json()) == expected[0]


def test_a_body_of_unknown_length(gateway: Gateway, photo: bytes, expected: list[dict[str, Any]]) -> None:
    body, headers = make_form(photo, photo)
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    answers = gateway.http.post("/analyze", content=pieces, headers=headers).json()
    assert [timeless(answer) for answer in answers] == [expected[0], expected[0]]


def test_an_offer_to_upgrade_to_http2(gateway: Gateway, photo: bytes, expected: list[dict[str, Any]]) -> None:
    # As Java's HTTP client sends it, also for requests with a body.
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    for _ in range(2):
        response = gateway.http.post("/analyze", content=photo, headers={"Content-Type": "image/jpeg", **offer})
        assert timeless(response.json()) == expected[0]


def test_a_form_in_single_bytes_around_its_boundaries(
    gateway: Gateway, expected: list[dict[str, Any]], photo: bytes
) -> None:
    body, headers = make_form(photo)
    pieces = [*(bytes([byte]) for byte in body[:150]), body[150:-50], *(bytes([byte]) for byte in body[-50:])]
    response = gateway.http.post("/analyze", content=iter(pieces), headers=headers)
    assert timeless(response.json()) == expected[0]


def test_several_photos_give_a_list(
    gateway: Gateway, sample_photos: list[Path], expected: list[dict[str, Any]]
) -> None:
    photos = [path.read_bytes() for path in sample_photos[:3]]
    response = gateway.analyze(photos[0], b"no photo", photos[1], b"", photos[2])
    assert response.status_code == 200
    first, bad, second, empty, third = response.json()
    assert [timeless(answer) for answer in (first, second, third)] == expected[:3]
    assert bad["error"].startswith(NOT_A_PHOTO)
    assert empty == {"error": "The photo is empty: it has 0 bytes.", "code": "photo.empty"}


def test_other_fields_are_ignored(gateway: Gateway, photo: bytes, expected: list[dict[str, Any]]) -> None:
    response = gateway.http.post(
        "/analyze", files={"thumbnail": b"x" * 100_000, "image": photo}, data={"user": "7", "note": "ü"}
    )
    assert timeless(response.json()) == expected[0]


def test_curl(gateway: Gateway, sample_photos: list[Path], expected: list[dict[str, Any]], tmp_path: Path) -> None:
    status, answer = ask_with_curl(gateway.url, "--form", f"image=@{sample_photos[0]}")
    assert (status, timeless(answer)) == (200, expected[0])
    status, answer = ask_with_curl(
        gateway.url, "--header", "Content-Type: image/jpeg", "--data-binary", f"@{sample_photos[1]}"
    )
    assert (status, timeless(answer)) == (200, expected[1])
    (tmp_path / "text.jpg").write_text("no photo")
    status, answer = ask_with_curl(gateway.url, "--form", f"image=@{tmp_path / 'text.jpg'}")
    assert status == 400
    assert answer["error"].startswith(NOT_A_PHOTO)


def test_node(gateway: Gateway, sample_photos: list[Path], expected: list[dict[str, Any]]) -> None:
    status, answer = ask_with_node(gateway.url, sample_photos[0])
    assert (status, timeless(answer)) == (200, expected[0])
    status, answers = ask_with_node(gateway.url, *sample_photos[:2])
    assert [timeless(answer) for answer in answers] == expected[:2]


def test_pythons_own_client(gateway: Gateway, photo: bytes, expected: list[dict[str, Any]]) -> None:
    body, headers = make_form(photo)
    with urllib.request.urlopen(urllib.request.Request(f"{gateway.url}/analyze", body, headers)) as response:
        assert timeless(json.load(response)) == expected[0]


def test_many_callers_each_get_their_own_answer(
    gateway: Gateway, sample_photos: list[Path], expected: list[dict[str, Any]]
) -> None:
    def ask(number: int) -> bool:
        position = number % len(sample_photos)
        response = gateway.analyze(sample_photos[position].read_bytes())
        return timeless(response.json()) == expected[position]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(200)))
