"""uvicorn, with what it lacks: a time limit for a request's head, JSON errors, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ._logs import logger
from ._problems import BUSY

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

    from ._gateway import Gateway

MAX_HEADER_BYTES = 16_384
# For a request's head, and for what a client still sends after its answer.
HEAD_S = 10.0
# For a client to read why it was refused, before its connection is closed.
LINGER_S = 1.0
BACKLOG = 2048
ANALYZE = b"POST /analyze"


class Protocol(H11Protocol):
    """HTTP/1.1 that answers JSON even to what is no HTTP, and waits for nobody for ever.

    Attributes:
        gateway: What is served; set by a subclass.
    """

    gateway: Gateway

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._heard = False
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.gateway.settings.max_connections:
            self._refuse(503, "There are too many connections; try again in a moment.", retry=True)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        self._stop_watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what a client sends, and watch the time while that is no request yet."""
        if self._refused:
            return
        if not self._heard and self.gateway.is_busy and data.startswith(ANALYZE):
            # Before it is even parsed: thousands of refusals must not take the time of what was accepted.
            self.gateway.refuse()
            self._refuse(503, BUSY, retry=True)
            return
        self._heard = True
        super().data_received(data)
        if self._is_answering:
            self._stop_watch()
        elif not self._refused:
            self._watch()

    def on_response_complete(self) -> None:
        """Start anew."""
        self._heard = False
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are plain text
        """Refuse what is no HTTP."""
        self._refuse(400, f"The HTTP request is malformed, or its head is over {MAX_HEADER_BYTES:,} bytes.")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        # Not from the start for each piece: one byte a second must not go on for ever.
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(HEAD_S, self._run_out)

    def _stop_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run_out(self) -> None:
        self._timer = None
        if self._heard:
            self._refuse(408, f"The request did not arrive within {HEAD_S:g} seconds.")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, *, retry: bool = False) -> None:
        if self._refused or self.transport.is_closing():
            return
        if self._is_answering:
            # In the middle of a request: the application hears that its client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._is_answering and self.cycle.response_started:
            self.transport.close()
        else:
            body = json.dumps({"error": message}).encode()
            head = [f"HTTP/1.1 {status} Refused", "Content-Type: application/json", f"Content-Length: {len(body)}"]
            head += ["Retry-After: 1"] if retry else []
            # There is nothing in it that a page of another origin must not read.
            head += ["Access-Control-Allow-Origin: *"] if self.gateway.settings.cors_origins else []
            self.transport.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + body)
            self._linger()

    def _linger(self) -> None:
        # Closed at once, with something unread, the connection would break before the client has the answer.
        self._refused = True
        self._stop_watch()
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)


class Server(uvicorn.Server):
    """Tells when it is ready. When told to stop, it answers what is in flight before it closes its socket.

    Args:
        config: uvicorn's.
        gateway: What is served.
        announce: Called when requests can come.
    """

    def __init__(self, config: uvicorn.Config, gateway: Gateway, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in flight. Meanwhile new photos are refused and /health says 503, so that balancers notice."""
        gateway = self._gateway
        gateway.stopping = True
        logger.info("stopping", extra={"facts": {"in_flight": gateway.in_flight}})
        loop = asyncio.get_running_loop()
        end = loop.time() + gateway.settings.drain_timeout
        while gateway.in_flight and loop.time() < end and not self.force_exit:  # noqa: ASYNC110 - a signal sets it
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket, so that a port in use is known before anything else is started.

    Raises:
        OSError: The address cannot be used.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    # Inherited by every connection. asyncio does not set it on sockets that it did not make, and an answer that comes
    # in two pieces would wait 40 ms for the first to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def run(app: Starlette, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until told to stop.

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
        http=type("Door", (Protocol,), {"gateway": gateway}),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=settings.keep_alive,
        # What was in flight has had its time by then.
        timeout_graceful_shutdown=1,
        backlog=BACKLOG,
    )
    # uvicorn takes these signals over while it serves, and gives them on to whoever had them before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    Server(config, gateway, announce).run([listener])
