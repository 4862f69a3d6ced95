"""uvicorn with additions: a timeout for request heads, JSON errors, and a graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import re
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ._errors import BUSY, error_body
from ._logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

    from ._gateway import Gateway

MAX_HEADER_BYTES = 16_384
# The timeout for a request's head.
HEAD_S = 10.0
# How long a client can read a rejection before the connection is closed.
LINGER_S = 1.0
BACKLOG = 2048
# At shutdown: 0.25 s for handshakes to complete, and 2 s for one more request of connections that are established.
ROUND_S = 0.05
HANDSHAKE_ROUNDS = 5
LAST_ROUNDS = 40
# From Linux's <asm-generic/socket.h>; Python does not name it.
SO_ATTACH_FILTER = 26
# Classic BPF: load the byte of a TCP header's flags; if SYN is set, drop the packet; otherwise keep it.
DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF_FFFF))
ANALYZE = b"POST /analyze"
UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with JSON errors even for malformed requests, and with timeouts for slow clients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gateway: Gateway = self.config.app.state.gateway  # type: ignore[union-attr]
        self._timer: asyncio.TimerHandle | None = None
        # Since the end of the last response.
        self._received_bytes = 0
        self._rejected = False
        # Its client had reason to believe that it would be served: load balancers knew nothing yet.
        self._is_early = not self._gateway.stopping

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or reject it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._gateway.settings.max_connections:
            self._reject(503, "There are too many connections; try again in a moment.", retry=True)
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process received data, with a timeout until the request's head is complete."""
        if self._rejected:
            return
        if not self._received_bytes:
            if self._gateway.is_busy and data.startswith(ANALYZE):
                # Before it is parsed: thousands of rejections must not delay the accepted requests.
                self._gateway.count_rejected()
                self._reject(503, BUSY, retry=True)
                return
            data = _remove_upgrade(data)
        self._received_bytes += len(data)
        super().data_received(data)
        if self._is_answering:
            self._stop_timer()
        elif self._received_bytes > MAX_HEADER_BYTES:
            self.send_400_response("The head is too large.")
        elif not self._rejected:
            self._start_timer()

    def on_response_complete(self) -> None:
        """Prepare for the next request."""
        self._received_bytes = 0
        super().on_response_complete()

    def on_headers_complete(self) -> None:
        """Start to process the request. HTTP/1.1 requires the header `Host`, but the parser does not."""
        if self.parser.get_http_version() == "1.1" and [name for name, _ in self.headers].count(b"host") != 1:
            raise ValueError("no Host, or several")  # the parser passes it on to `send_400_response`
        self.scope["state"]["is_early"] = self._is_early
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's message is plain text
        """Reject a malformed request."""
        reasons = f"is malformed, its method is unknown, or its head is over {MAX_HEADER_BYTES:,} bytes"
        self._reject(400, f"The HTTP request {reasons}.")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        # Not restarted for each chunk: a client that sends one byte a second must be stopped.
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(HEAD_S, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        if self._received_bytes:
            self._reject(408, f"The request did not arrive within {HEAD_S:g} seconds.")
        else:
            self.transport.close()

    def _reject(self, status: int, message: str, *, retry: bool = False) -> None:
        if self._rejected or self.transport.is_closing():
            return
        if self._is_answering:
            # In the middle of a request: tell the application that the client disconnected.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._is_answering and self.cycle.response_started:
            self.transport.close()
        else:
            body = json.dumps(error_body(status, message)).encode()
            head = [f"HTTP/1.1 {status} Rejected", "Content-Type: application/json", f"Content-Length: {len(body)}"]
            head += ["Retry-After: 1"] if retry else []
            # Pages of any origin may read it: it contains nothing confidential.
            head += ["Access-Control-Allow-Origin: *"] if self._gateway.settings.cors_origins else []
            self.transport.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + body)
            self._close_later()

    def _close_later(self) -> None:
        # If the connection were closed at once, with unread data, the client might not receive the response.
        self._rejected = True
        self._stop_timer()
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)


class Server(uvicorn.Server):
    """Announces when it is ready, and completes requests in flight before it shuts down.

    Args:
        config: uvicorn's configuration.
        gateway: The gateway.
        announce: Called when the server accepts requests.
    """

    def __init__(self, config: uvicorn.Config, gateway: Gateway, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Complete requests in flight, and one more of each connection that was there before.

        Meanwhile, /health is 503 for load balancers, and so are photos on new connections.
        """
        gateway = self._gateway
        gateway.stopping = True
        logger.info("stopping", extra={"fields": {"in_flight": gateway.in_flight}})
        end = asyncio.get_running_loop().time() + gateway.settings.drain_timeout
        await self._complete_requests(end)
        for listener in sockets or []:
            ignore_new_connections(listener)
        await self._answer_established(end)
        await self._complete_requests(end)
        await super().shutdown(sockets)

    async def _complete_requests(self, end: float) -> None:
        while self._gateway.in_flight and self._has_time(end):  # noqa: ASYNC110 - a signal sets `force_exit`
            await asyncio.sleep(ROUND_S)

    async def _answer_established(self, end: float) -> None:
        # In rounds: the event loop accepts a connection in one, and reads its request in a later one.
        for number in range(LAST_ROUNDS):
            goes_on = self.server_state.connections and self._has_time(end)
            if self.force_exit or (number >= HANDSHAKE_ROUNDS and not goes_on):
                return
            await asyncio.sleep(ROUND_S)

    def _has_time(self, end: float) -> bool:
        return asyncio.get_running_loop().time() < end and not self.force_exit


def _remove_upgrade(data: bytes) -> bytes:
    """Remove the header `Upgrade` from the start of a request.

    Java's HTTP client, and others, offer to upgrade to HTTP/2. The parser would skip the body of such a request.
    """
    found = UPGRADE.search(data, 0, data.find(b"\r\n\r\n"))
    return data if found is None else data[: found.start()] + data[found.end() :]


def listen(host: str, port: int) -> socket.socket:
    """Open the socket early, so that a port in use is reported before anything else starts.

    Raises:
        OSError: The address cannot be used.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    # Inherited by every connection; asyncio sets it only on sockets that it created. Without it, a response in two
    # packets waits 40 ms for the first acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def ignore_new_connections(listener: socket.socket) -> None:
    """Make the kernel drop packets that open connections, so that the listener can close when its queue is empty.

    Closing it resets the connections that still wait to be accepted: their clients may have sent a request.
    """
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in DROP_SYN))
    program = struct.pack("HP", len(DROP_SYN), ctypes.addressof(instructions))
    with contextlib.suppress(OSError):  # not Linux
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def run(app: Starlette, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: From `make_app`.
        listener: From `listen`.
        announce: Called when requests can come.
    """
    gateway: Gateway = app.state.gateway
    settings = gateway.settings
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,
        # `Server.shutdown` has waited for requests in flight by then.
        timeout_graceful_shutdown=1,
        backlog=BACKLOG,
    )
    # uvicorn handles these signals while it serves, and raises them again for the previous handlers afterwards.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    Server(config, gateway, announce).run([listener])
