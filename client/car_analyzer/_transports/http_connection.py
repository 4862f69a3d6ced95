"""HTTP/1.1 connections: asyncio's streams, and h11 for the protocol.

The complete HTTP clients for asyncio take longer to import than an analysis.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import h11

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

# Servers and proxies close idle connections, many of them after a minute.
MAX_IDLE_S = 15.0
READ_BYTES = 1 << 16


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
        self._http = h11.Connection(h11.CLIENT)
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
            h11.LocalProtocolError: A header is not valid.
            OSError: The connection was lost.
            EOFError: The server closed it before the response was complete.
            NotHttpError: What arrived is not an HTTP response.
        """
        fields = {**headers, "content-length": str(len(body))} if body else headers
        request = h11.Request(method=method, target=target, headers=list(fields.items()))
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        try:
            # Without waiting until all of it is sent: a server may reject a photo before it has read it.
            self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
            response = await self._read()
        except BaseException:
            self.abort()
            raise
        self._can_be_kept = self._http.our_state is self._http.their_state is h11.DONE
        if self._writer.transport.get_write_buffer_size():
            self._can_be_kept = False
        if self._can_be_kept:
            self._http.start_next_cycle()
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
        response, content = None, []
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                content.append(event.data)
        if response is None:
            raise NotHttpError("no response")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        return Response(response.status_code, headers, b"".join(content))

    async def _next_event(self) -> Any:
        has_ended = False
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(READ_BYTES)
                has_ended = not data
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise (EOFError if has_ended else NotHttpError)(str(error)) from error
        return event
