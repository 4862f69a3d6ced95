"""HTTP responses in all the shapes that servers and proxies send."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from car_analyzer import UnreachableError
from car_analyzer._transports import open_transport
from car_analyzer._transports.http_connection import Connection, NotHttpError, Response
from car_analyzer.config import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Scripted:
    """Sends one reply for each request: `scripts` holds a list of them for each connection, which is then closed."""

    def __init__(self, *scripts: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self.port = 0
        self._scripts = list(scripts)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Scripted]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in self._scripts.pop(0):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(reply)
        writer.close()


async def receive(reply: bytes) -> tuple[Response, bool]:
    """The response, and whether the connection can be used again."""
    async with Scripted([reply]).listening() as server:
        connection = await Connection.open("127.0.0.1", server.port, None, "")
        try:
            return await connection.send("GET", "/", {"host": "triton"}, b""), connection.is_open
        finally:
            connection.abort()


@pytest.mark.parametrize(
    ("reply", "content"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole", b"whole"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200\r\ncontent-length:3\r\n\r\nold", b"old"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate", b"late"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n5;x=y\r\n\r\ntwo\r\n0\r\nA: b\r\n\r\n",
            b"one\r\ntwo",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000, b"x" * 300_000),
    ],
)
async def test_bodies(reply: bytes, content: bytes) -> None:
    response, is_open = await receive(reply)
    assert response.status in (200, 204)
    assert response.content == content
    if b"close" in reply or b"1.0" in reply or b"to the end" in reply:
        assert not is_open


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", EOFError),
        (b"HTTP/1.1 200 OK\r\nContent-Le", EOFError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", EOFError),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", NotHttpError),
        (b"220 mail server\r\n\r\n", NotHttpError),
        (b"HTTP/1.1 OK\r\n\r\n", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nlong\r\n", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nLong: " + b"x" * 200_000, NotHttpError),
    ],
)
async def test_what_is_no_response(reply: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await receive(reply)


@pytest.mark.parametrize("after_the_first", [[], [TIMED_OUT], [b"HTTP/1.1 200"]])
async def test_a_connection_that_was_closed_while_idle(after_the_first: list[bytes]) -> None:
    async with Scripted([OK, *after_the_first], [OK]).listening() as server:
        transport = open_transport(Endpoint.parse(f"http://127.0.0.1:{server.port}"), None, {})
        assert await transport.is_server_ready(timeout=60)
        assert await transport.is_server_ready(timeout=60)
        await transport.close()
    assert len(server.requests) == 2 + len(after_the_first)


async def test_a_new_connection_is_not_repeated() -> None:
    async with Scripted([b"HTTP/1.1 200"]).listening() as server:
        transport = open_transport(Endpoint.parse(f"http://127.0.0.1:{server.port}"), None, {})
        with pytest.raises(UnreachableError, match="closed the connection"):
            await transport.is_server_ready(timeout=60)
        await transport.close()
    assert len(server.requests) == 1


async def test_the_request() -> None:
    async with Scripted([OK]).listening() as server:
        endpoint = Endpoint.parse(f"http://127.0.0.1:{server.port}/a%20b/ü")
        transport = open_transport(endpoint, None, {"User-Agent": "mine", "X-Key": "s3cret"})
        await transport.is_model_ready("my model", timeout=60)
        await transport.close()
    first, *fields = server.requests[0].decode().split("\r\n")
    assert first == "GET /a%20b/%C3%BC/v2/models/my%20model/ready HTTP/1.1"
    assert f"host: 127.0.0.1:{server.port}" in fields
    assert [field for field in fields if field.startswith(("user-agent", "x-key"))] == [
        "user-agent: mine",
        "x-key: s3cret",
    ]
