"""Every rejected request gets one sentence, in one format, with the right status, in every client."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from car_analyzer.errors import CODES
from car_analyzer_gateway import _errors
from tests.conftest import PATIENCE_S, until

from .conftest import Gateway, make_form
from .test_analyze import ask_with_curl, ask_with_node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from reliability.proxy import Proxy


def refused(response: httpx.Response, status: int, message: str) -> None:
    assert response.headers["content-type"] == "application/json"
    assert (response.status_code, list(response.json())) == (status, ["error", "code"]), response.text
    assert message in response.json()["error"]
    assert response.json()["code"] in {*CODES, *_errors.CODES.values(), _errors.STOPPING}


def talk(gateway: Gateway, data: bytes) -> bytes:
    """Send bytes that no HTTP library would send."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


FORM = "multipart/form-data; boundary=x1y2"
IMAGE = b'--x1y2\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
OTHER = b'--x1y2\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n'


@pytest.mark.parametrize(
    ("content", "media_type", "status", "message"),
    [
        (b"no photo", "image/jpeg", 400, "The file is not a photo that can be read"),
        (b"", "image/jpeg", 400, "body is empty"),
        (b"", "application/octet-stream", 400, "body is empty"),
        (b"", None, 400, "No photo: the request has no body"),
        (b"x", None, 415, "Send the photo as the multipart field 'image'"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "not application/x-www-form-urlencoded"),
        (b"{}", "application/json", 415, "not application/json"),
        (b"x", "multipart/form-data", 400, "no boundary"),
        (b"x", f"multipart/form-data; boundary={'y' * 300}", 400, "cannot be read"),
        (b"x", FORM, 400, "cannot be read"),
        (b"", FORM, 400, "ends before its last boundary"),
        (b"--x1y2--\r\n", FORM, 400, "the form is empty"),
        (
            b'--x1y2\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc',
            FORM,
            400,
            "ends before its last boundary",
        ),
        (OTHER + b"--x1y2--\r\n", FORM, 400, "send it as the multipart field 'image'; the form has only 'file'"),
        (b"--x1y2\r\n\r\nabc\r\n--x1y2--\r\n", FORM, 400, "the form has only ''"),
        (b"--x1y2\r\nA: " + b"b" * 10_000 + b"\r\n\r\nabc\r\n--x1y2--\r\n", FORM, 400, "cannot be read"),
        (
            b'--x1y2\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 200 + b"--x1y2--",
            FORM,
            400,
            "more than 100",
        ),
    ],
)
def test_a_bad_request(gateway: Gateway, content: bytes, media_type: str | None, status: int, message: str) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    refused(gateway.http.post("/analyze", content=content, headers=headers), status, message)


def test_a_photo_that_is_none_in_a_form(gateway: Gateway) -> None:
    refused(gateway.analyze(b"GIF89a but no more"), 400, "The")
    refused(gateway.analyze(b""), 400, "The photo is empty")


def test_a_compressed_body(gateway: Gateway, photo: bytes) -> None:
    headers = {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}
    refused(gateway.http.post("/analyze", content=gzip.compress(photo), headers=headers), 415, "Content-Encoding")


@pytest.mark.parametrize("path", ["/nothing", "/analyze/", "/analyze/more", "/%2e%2e/pyproject.toml", "//"])
def test_an_unknown_path(gateway: Gateway, photo: bytes, path: str) -> None:
    refused(gateway.http.get(f"{gateway.url}{path}"), 404, "There is nothing at /")
    refused(gateway.http.post(f"{gateway.url}{path}", content=photo), 404, "There is nothing at /")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/analyze"), ("PUT", "/analyze"), ("POST", "/health"), ("POST", "/")]
)
def test_a_method_that_is_not_taken(gateway: Gateway, method: str, path: str) -> None:
    response = gateway.http.request(method, path)
    refused(response, 405, f"{path} does not take {method}")
    assert "POST" in response.headers["allow"] or "GET" in response.headers["allow"]


class TestTooLarge:
    """The limit is 1 MB here. Each client receives the error, although it is still sending."""

    @pytest.fixture
    def small(self, server: SimpleNamespace, start_gateway: Callable[..., Gateway], tmp_path: Path) -> Gateway:
        # Python runs this module first: the gateway discards the rest of an upload for as long as needed.
        (tmp_path / "sitecustomize.py").write_text(
            "from car_analyzer_gateway import _middleware\n_middleware.DISCARD_S = 600\n"
        )
        limits = ["--max-photo-bytes", "1MB", "--max-photos", "3"]
        return start_gateway(server.grpc_url, *limits, PYTHONPATH=str(tmp_path))

    @pytest.mark.parametrize("size", [1_000_001, 30_000_000])
    def test_a_photo(self, small: Gateway, size: int) -> None:
        zeros = bytes(size)
        raw = {"Content-Type": "image/jpeg"}
        body, form = make_form(zeros)
        refused(small.analyze(zeros), 413, "too large")
        refused(small.http.post("/analyze", content=zeros, headers=raw), 413, "at most 1,000,000 bytes")
        chunks = (zeros[start : start + 65536] for start in range(0, size, 65536))
        refused(small.http.post("/analyze", content=chunks, headers=raw), 413, "too large")
        chunks = (body[start : start + 65536] for start in range(0, size, 65536))
        refused(small.http.post("/analyze", content=chunks, headers=form), 413, "too large")
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(urllib.request.Request(f"{small.url}/analyze", zeros, raw))
        assert raised.value.code == 413
        assert "too large" in json.load(raised.value)["error"]
        raised.value.close()

    def test_a_photo_at_the_limit_is_taken(self, small: Gateway, photo: bytes) -> None:
        assert small.analyze(photo + bytes(1_000_000 - len(photo))).status_code == 200

    def test_curl_and_node(self, small: Gateway, tmp_path: Path) -> None:
        file = tmp_path / "large.jpg"
        file.write_bytes(bytes(30_000_000))
        for arguments in (["--form", f"image=@{file}"], ["-H", "Content-Type: image/png", "--data-binary", f"@{file}"]):
            status, answer = ask_with_curl(small.url, *arguments)
            assert (status, list(answer)) == (413, ["error", "code"])
        status, answer = ask_with_node(small.url, file)
        assert (status, list(answer)) == (413, ["error", "code"])

    def test_many_photos(self, small: Gateway, photo: bytes) -> None:
        assert len(small.analyze(photo, photo, photo).json()) == 3
        refused(small.analyze(photo, photo, photo, photo), 413, "too many photos in one request; at most 3")

    def test_one_of_several(self, small: Gateway, photo: bytes) -> None:
        refused(small.analyze(photo, bytes(1_500_000)), 413, "too large")
        assert small.analyze(photo).status_code == 200

    def test_before_anything_is_sent(self, small: Gateway) -> None:
        head = "POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 50000000\r\n"
        # It must not wait for a body that will not come. The connection is closed: the body might still come.
        answer = talk(small, f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 413")


class TestToken:
    TOKEN = "s3cret-token"

    @pytest.fixture
    def guarded(self, server: SimpleNamespace, start_gateway: Callable[..., Gateway]) -> Gateway:
        return start_gateway(server.grpc_url, CAR_ANALYZER_TOKEN=self.TOKEN)

    def test_only_with_the_token(self, guarded: Gateway, photo: bytes) -> None:
        response = guarded.analyze(photo)
        refused(response, 401, "A token is needed")
        assert response.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer x", f"Bearer {self.TOKEN}x", f"Basic {self.TOKEN}", self.TOKEN, "Bearer", "Bearer é"):
            refused(guarded.analyze(photo, headers={"Authorization": wrong.encode()}), 401, "not the right one")
        for right in (f"Bearer {self.TOKEN}", f"bearer {self.TOKEN}"):
            assert guarded.analyze(photo, headers={"Authorization": right}).status_code == 200
        guarded.health(200)
        for path in ("/metrics", "/", "/docs", "/openapi.json"):
            assert guarded.http.get(path).status_code == 200
        assert guarded.metric("car_analyzer_errors_total", kind="token") == 7
        assert self.TOKEN not in json.dumps(guarded.log())
        assert "s3cret" not in json.dumps(guarded.log())

    def test_in_a_file_and_for_everything(
        self, server: SimpleNamespace, start_gateway: Callable[..., Gateway], tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text(f"{self.TOKEN}\n")
        gateway = start_gateway(server.grpc_url, "--token-file", str(tmp_path / "token"), "--protect", "all")
        for path in ("/health", "/metrics", "/", "/docs", "/openapi.json", "/nothing"):
            refused(gateway.http.get(path), 401, "A token is needed")
        gateway.http.headers["Authorization"] = f"Bearer {self.TOKEN}"
        gateway.health(200)
        document = gateway.http.get("/openapi.json").json()
        assert all(
            operation["security"] == [{"token": []}] and "401" in operation["responses"]
            for path in document["paths"].values()
            for operation in path.values()
        )
        command = subprocess.run([shutil.which("ps") or "ps", "ax"], capture_output=True, text=True).stdout
        assert self.TOKEN not in command


class TestSlowClients:
    HEAD = b"POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"

    @staticmethod
    def answer(data: bytes) -> tuple[bytes, Any]:
        head, _, body = data.partition(b"\r\n\r\n")
        return head.split(b" ")[1], json.loads(body)

    def test_an_upload_that_stalls(self, server: SimpleNamespace, start_gateway: Callable[..., Gateway]) -> None:
        gateway = start_gateway(server.grpc_url, "--upload-timeout", "0.5", "--max-held-bytes", "20MB")
        status, body = self.answer(talk(gateway, self.HEAD + b"abc"))
        assert status == b"408"
        assert body == {"error": "The photo did not arrive within 0.5 seconds.", "code": "request.timeout"}
        assert gateway.metric("car_analyzer_held_bytes") == 0

    def test_a_head_that_stalls(self, gateway: Gateway, photo: bytes) -> None:
        status, body = self.answer(talk(gateway, self.HEAD[:30]))
        assert (status, list(body)) == (b"408", ["error", "code"])
        assert gateway.analyze(photo).status_code == 200

    def test_a_silent_connection_is_closed(self, gateway: Gateway) -> None:
        assert talk(gateway, b"") == b""


class TestNotHTTP:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"hello\r\n\r\n",
            b"BREW /analyze HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000,
            b"POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        ],
    )
    def test_is_refused_as_json(self, gateway: Gateway, data: bytes) -> None:
        status, body = TestSlowClients.answer(talk(gateway, data))
        assert (status, list(body)) == (b"400", ["error", "code"])

    def test_a_broken_chunk_in_the_middle_of_a_body(self, gateway: Gateway) -> None:
        head = b"POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
        status, _ = TestSlowClients.answer(talk(gateway, head + b"3\r\nabc\r\nnonsense\r\n"))
        assert status == b"400"

    def test_a_client_that_hangs_up(self, gateway: Gateway, photo: bytes) -> None:
        before = gateway.metric("car_analyzer_errors_total", kind="disconnected")
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(TestSlowClients.HEAD + b"abc")
        until(lambda: gateway.metric("car_analyzer_errors_total", kind="disconnected") > before)
        assert gateway.metric("car_analyzer_held_bytes") == 0
        assert gateway.analyze(photo).status_code == 200


class TestCors:
    ORIGIN = "https://app.example"

    def test_is_off(self, gateway: Gateway, photo: bytes) -> None:
        response = gateway.analyze(photo, headers={"Origin": self.ORIGIN})
        assert not [name for name in response.headers if name.startswith("access-control")]
        refused(gateway.http.options("/analyze", headers={"Origin": self.ORIGIN}), 405, "does not take OPTIONS")

    def test_for_named_origins(
        self, server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes
    ) -> None:
        gateway = start_gateway(
            server.grpc_url, CAR_ANALYZER_CORS_ORIGINS=f"{self.ORIGIN}/, http://localhost:3000", CAR_ANALYZER_TOKEN="t"
        )
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-request-id",
        }
        preflight = gateway.http.options("/analyze", headers={"Origin": self.ORIGIN, **asked})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == self.ORIGIN
        refused(gateway.http.options("/analyze", headers={"Origin": "https://evil.example", **asked}), 400, "origin")
        allowed = gateway.analyze(photo, headers={"Origin": self.ORIGIN, "Authorization": "Bearer t"})
        assert allowed.headers["access-control-allow-origin"] == self.ORIGIN
        assert "X-Request-ID" in allowed.headers["access-control-expose-headers"]
        # Errors can be read, too.
        refusal = gateway.analyze(photo, headers={"Origin": "http://localhost:3000"})
        refused(refusal, 401, "token")
        assert refusal.headers["access-control-allow-origin"] == "http://localhost:3000"
        other = gateway.analyze(photo, headers={"Origin": "https://evil.example", "Authorization": "Bearer t"})
        assert "access-control-allow-origin" not in other.headers


def test_too_many_connections(server: SimpleNamespace, start_gateway: Callable[..., Gateway], photo: bytes) -> None:
    gateway = start_gateway(server.grpc_url, "--max-connections", "5")
    # Connections are accepted in order.
    held = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(5)]
    head, _, body = talk(gateway, b"").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"Retry-After: 1" in head
    assert list(json.loads(body)) == ["error", "code"]
    for connection in held:
        connection.close()
    until(lambda: gateway.analyze(photo).status_code == 200)


def test_too_many_photos(
    server: SimpleNamespace, make_proxy: Callable[..., Proxy], start_gateway: Callable[..., Gateway], photo: bytes
) -> None:
    proxy = make_proxy(server.http_url).listen()
    gateway = start_gateway(f"http://127.0.0.1:{proxy.port}", "--max-waiting", "2", "--timeout", "600")
    proxy.freeze()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(gateway.analyze, photo) for _ in range(20)]
        # Two wait for an answer; all others are rejected.
        for answer in islice(as_completed(answers), 18):
            refused(answer.result(), 503, "The service is busy")
            assert answer.result().headers["Retry-After"] == "1"
        proxy.thaw()
    assert Counter(answer.result().status_code for answer in answers) == {200: 2, 503: 18}
    # All bytes were released.
    assert gateway.analyze(photo).status_code == 200
    metrics = gateway.http.get("/metrics").text
    assert "car_analyzer_held_bytes 0.0" in metrics
    assert 'car_analyzer_errors_total{kind="busy"} 18.0' in metrics
