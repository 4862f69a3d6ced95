"""What surrounds every request: an id, a line in the log, a count, and an error that is always JSON."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware

from ._logs import logger, request_id
from ._problems import AnswerError, ClientGoneError, error_response, stopping

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ._metrics import Metrics

SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# How long what is left of a refused upload is read and thrown away. A connection that is closed while the client
# still sends breaks before the client reads why.
DISCARD_S = 5.0
QUIET = {"/health", "/metrics"}


class Exchange:
    """One request and its answer, as the log and the metrics want to know them."""

    def __init__(self, receive: Receive, send: Send, headers: Headers) -> None:
        self.status = 499
        self.started = False
        self.bytes_in = 0
        self._receive = receive
        self._send = send
        self._unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._asked = False
        self._on_invitation = headers.get("expect", "").lower() == "100-continue"
        given = headers.get("x-request-id", "")
        self.id = given if SANE_ID.fullmatch(given) else uuid.uuid4().hex

    async def receive(self) -> Message:
        """Hand on a piece of the body, and note whether there is more."""
        self._asked = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Hand on a piece of the answer, with the request's id."""
        if message["type"] == "http.response.start":
            # A client that waits to be invited sends nothing, and there is nothing to throw away.
            # Nor is it of use with one that was too slow.
            is_sending = self._unread and (self._asked or not self._on_invitation)
            if is_sending and message["status"] != 408:
                with anyio.move_on_after(DISCARD_S):
                    while self._unread:
                        await self.receive()
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            headers.setdefault("X-Content-Type-Options", "nosniff")
        await self._send(message)


class Observe:
    """Gives each request its id, logs it and counts it.

    Args:
        app: What answers.
        metrics: Where it is counted.
        paths: The paths that are counted under their own names.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(receive, send, Headers(scope=scope))
        facts: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=exchange.id, facts=facts)
        named = request_id.set(exchange.id)
        started = time.perf_counter()
        try:
            with self._metrics.in_flight.track_inprogress():
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # The time to finish is over. Nobody waits for this task but the server, which is about to end.
            if not exchange.started:
                await stopping().response()(scope, exchange.receive, exchange.send)
        finally:
            self._note(scope, exchange, facts, time.perf_counter() - started)
            request_id.reset(named)

    def _note(self, scope: Scope, exchange: Exchange, facts: dict[str, Any], seconds: float) -> None:
        path, method, status = scope["path"], scope["method"], exchange.status
        self._metrics.count_request(path if path in self._paths else "other", method, status, seconds)
        if "error" in facts:
            self._metrics.errors.labels(facts["error"]).inc()
        log = logger.debug if path in QUIET and status == 200 else logger.info
        line = {"method": method, "path": path[:200], "status": status, "milliseconds": round(seconds * 1000, 1)}
        log("request", extra={"facts": {**line, "bytes_in": exchange.bytes_in, **facts}})


class Errors:
    """Turns whatever is raised into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = scope["state"]["facts"]
        try:
            await self._app(scope, receive, send)
        except ClientGoneError:
            facts["error"] = "disconnected"
        except AnswerError as error:
            facts["error"] = error.kind
            facts["reason"] = error.details or error.message
            await error.response()(scope, receive, send)
        except Exception:  # noqa: BLE001 - the last resort: it is logged, and the caller is told
            facts["error"] = "bug"
            logger.exception("This is a bug in the gateway.")
            response = error_response(500, "Something went wrong here; the log has more under this request's id.")
            await response(scope, receive, send)


class Guard:
    """Lets in who has the token.

    Args:
        app: What is guarded.
        token: What callers have to send.
        paths: The paths that are guarded; None for all.
    """

    def __init__(self, app: ASGIApp, token: bytes, paths: frozenset[str] | None) -> None:
        self._app = app
        self._expected = b"Bearer " + token
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (self._paths is None or scope["path"] in self._paths):
            given = Headers(scope=scope).get("authorization", "")
            scheme, _, token = given.partition(" ")
            sent = f"{scheme.capitalize()} {token.strip()}".encode("latin-1", "replace")
            if not hmac.compare_digest(sent, self._expected):
                message = (
                    "A token is needed: Authorization: Bearer …" if not given else "The token is not the right one."
                )
                raise AnswerError(401, "token", message, headers={"WWW-Authenticate": "Bearer"})
        await self._app(scope, receive, send)


class Cors(CORSMiddleware):
    """Starlette's, whose refusals are JSON here like all errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer what a browser asks before it sends a request of another origin."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return error_response(response.status_code, f"{bytes(response.body).decode()}.", headers)
