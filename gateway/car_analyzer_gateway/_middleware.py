"""Middleware for every request: its id, log line and metrics, JSON errors, tokens and CORS."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import cors
from starlette.responses import Response
from starlette.routing import Match, Route

from ._errors import ClientDisconnectedError, GatewayError, error_response, stopping
from ._logs import logger, request_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ._metrics import Metrics

VALID_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# How long the rest of a rejected upload is read and discarded. If the connection were closed while the client still
# sends, the client would get a connection error and not the response.
DISCARD_S = 5.0
PROBE_PATHS = {"/health", "/metrics"}


class Exchange:
    """One request and its response, observed for the log and the metrics."""

    def __init__(self, receive: Receive, send: Send, headers: Headers) -> None:
        self.status = 499
        self.started = False
        self.bytes_in = 0
        self._receive = receive
        self._send = send
        self._has_more = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._body_requested = False
        self._expects_continue = headers.get("expect", "").lower() == "100-continue"
        given = headers.get("x-request-id", "")
        self.id = given if VALID_ID.fullmatch(given) else uuid.uuid4().hex

    async def receive(self) -> Message:
        """Pass on a chunk of the body, and note whether there is more."""
        self._body_requested = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._has_more = False
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Pass on a part of the response, with the request's id."""
        if message["type"] == "http.response.start":
            # A client that waits for `100 Continue` has sent nothing to discard. After a timeout (408), waiting for the
            # rest is pointless.
            is_sending = self._has_more and (self._body_requested or not self._expects_continue)
            if is_sending and message["status"] != 408:
                with anyio.move_on_after(DISCARD_S):
                    while self._has_more:
                        await self.receive()
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            if self._has_more:
                # The rest of the body may still come: it is not the next request.
                headers["Connection"] = "close"
        await self._send(message)


class RequestMiddleware:
    """Gives each request an id, logs it and counts it.

    Args:
        app: The next application.
        metrics: The metrics.
        paths: The paths with metrics of their own; all others are counted as `other`.
        logs: Whether it logs each request.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str], *, logs: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths
        self._logs = logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(receive, send, Headers(scope=scope))
        fields: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=exchange.id, log_fields=fields)
        named = request_id.set(exchange.id)
        started = time.perf_counter()
        try:
            with self._metrics.in_flight.track_inprogress():
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # The drain timeout is over and the server is about to exit; only the server waits for this task.
            if not exchange.started:
                await stopping().response()(scope, exchange.receive, exchange.send)
        finally:
            self._record(scope, exchange, fields, time.perf_counter() - started)
            request_id.reset(named)

    def _record(self, scope: Scope, exchange: Exchange, fields: dict[str, Any], seconds: float) -> None:
        path, method, status = scope["path"], scope["method"], exchange.status
        self._metrics.count_request(path if path in self._paths else "other", method, status, seconds)
        if "error" in fields:
            self._metrics.errors.labels(fields["error"]).inc()
        level = logging.DEBUG if path in PROBE_PATHS and status == 200 else logging.INFO
        if self._logs and logger.isEnabledFor(level):
            line = {"method": method, "path": path[:200], "status": status, "milliseconds": round(seconds * 1000, 1)}
            logger.log(level, "request", extra={"fields": {**line, "bytes_in": exchange.bytes_in, **fields}})


class ErrorMiddleware:
    """Converts exceptions to responses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields = scope["state"]["log_fields"]
        try:
            await self._app(scope, receive, send)
        except ClientDisconnectedError:
            fields["error"] = "disconnected"
        except GatewayError as error:
            fields["error"] = error.kind
            fields["code"] = error.body()["code"]
            fields["reason"] = error.details or error.message
            await error.response()(scope, receive, send)
        except Exception:  # noqa: BLE001 - the last resort: it is logged, and the client gets a 500
            fields.update(error="bug", code="service.failed")
            logger.exception("This is a bug in the gateway.")
            response = error_response(500, "The gateway failed; its log has the details under this request's id.")
            await response(scope, receive, send)


class TokenMiddleware:
    """Rejects requests without the token.

    Args:
        app: The next application.
        token: The bearer token.
        paths: The protected paths; None for all.
        but: Paths that need another token.
    """

    def __init__(
        self, app: ASGIApp, token: bytes, paths: frozenset[str] | None, but: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._expected = b"Bearer " + token
        self._routes = None if paths is None else _routes(paths)
        self._but = _routes(but)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._covers(scope):
            given = Headers(scope=scope).get("authorization", "")
            scheme, _, token = given.partition(" ")
            sent = f"{scheme.capitalize()} {token.strip()}".encode("latin-1", "replace")
            if not hmac.compare_digest(sent, self._expected):
                message = (
                    "A token is needed: Authorization: Bearer …" if not given else "The token is not the right one."
                )
                raise GatewayError(401, "token", message, headers={"WWW-Authenticate": "Bearer"})
        await self._app(scope, receive, send)

    def _covers(self, scope: Scope) -> bool:
        return not _leads_to(self._but, scope) and (self._routes is None or _leads_to(self._routes, scope))


def _routes(paths: frozenset[str]) -> list[Route]:
    return [Route(path, Response()) for path in paths]


def _leads_to(routes: list[Route], scope: Scope) -> bool:
    # As Starlette decides it: routes also match with a newline at the end, and below the path of a mounted application.
    return any(route.matches(scope)[0] is not Match.NONE for route in routes)


class CorsMiddleware(cors.CORSMiddleware):
    """Starlette's CORS middleware with JSON errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return error_response(response.status_code, f"{bytes(response.body).decode()}.", headers)
