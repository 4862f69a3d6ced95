"""HTTP/1.1 on asyncio's streams: as much of it as a Triton and the proxies in front of it need.

The general HTTP clients for asyncio take longer to import than an analysis.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

# Servers and proxies close idle connections, many of them after a minute.
MAX_IDLE_S = 15.0
NO_CONTENT = (204, 304)


class Response(NamedTuple):
    """A response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class NotHttpError(Exception):
    """What arrived is not an HTTP/1 response."""


class Connection:
    """A connection for one request at a time.

    Attributes:
        is_reused: It has carried a request before. The server may have closed it since.
        is_open: It can carry another request.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._idle_since = time.monotonic()
        self._can_be_kept = True
        self.is_reused = False

    @classmethod
    async def open(cls, address: str, port: int, tls: ssl.SSLContext | None, server_name: str) -> Connection:
        """Connect.

        Args:
            address: An IP address or a name.
            port: The port.
            tls: None for plain HTTP.
            server_name: The name that the certificate must have.

        Raises:
            OSError: There is no connection.
            UnicodeError: The name is not a valid host name.
        """
        name = server_name if tls is not None else None
        return cls(*await asyncio.open_connection(address, port, ssl=tls, server_hostname=name))

    @property
    def is_open(self) -> bool:
        fresh = time.monotonic() - self._idle_since < MAX_IDLE_S
        return self._can_be_kept and fresh and not self._writer.is_closing() and not self._reader.at_eof()

    async def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request and read the response. After any exception, the connection is closed.

        Raises:
            OSError: The connection was lost.
            EOFError: The server closed it before the response was complete.
            NotHttpError: What arrived is not an HTTP response.
        """
        fields = {**headers, "content-length": str(len(body))} if body else headers
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        try:
            # Without waiting until all of it is sent: a server may reject a photo before it has read it.
            self._writer.write("\r\n".join(lines).encode() + body)
            response = await self._read()
        except BaseException:
            self.abort()
            raise
        if self._writer.transport.get_write_buffer_size():
            self._can_be_kept = False
        self.is_reused = True
        self._idle_since = time.monotonic()
        return response

    def abort(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until a connection that was aborted is closed."""
        await self._writer.wait_closed()

    async def _read(self) -> Response:
        try:
            version, status, headers = await self._read_head()
            while 100 <= status < 200:
                version, status, headers = await self._read_head()
            closes = version != "HTTP/1.1" or "close" in headers.get("connection", "").lower()
            if status in NO_CONTENT:
                content = b""
            elif "chunked" in headers.get("transfer-encoding", "").lower():
                content = await self._read_chunks()
            elif "content-length" in headers:
                content = await self._reader.readexactly(int(headers["content-length"]))
            else:
                content, closes = await self._reader.read(), True
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise NotHttpError(str(error)) from error
        self._can_be_kept = not closes
        return Response(status, headers, content)

    async def _read_head(self) -> tuple[str, int, dict[str, str]]:
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial and not error.partial.startswith(b"HTTP/1."):
                raise NotHttpError(repr(error.partial[:20])) from error
            raise
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        version, status, *_ = first.split(" ", 2)
        if not version.startswith("HTTP/1."):
            raise NotHttpError(repr(first))
        fields = (line.partition(":") for line in lines)
        return version, int(status), {name.strip().lower(): value.strip() for name, _, value in fields}

    async def _read_chunks(self) -> bytes:
        chunks = []
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            chunks.append((await self._reader.readexactly(size + 2))[:-2])
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
        return b"".join(chunks)
