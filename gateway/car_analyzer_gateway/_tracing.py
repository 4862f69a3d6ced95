"""OpenTelemetry: one trace for a request, from the caller through the gateway into Triton."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from car_analyzer import ConfigurationError

from ._middleware import PROBE_PATHS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The time limit for sending the last spans at shutdown, in seconds.
EXPORT_S = 5


class Tracing:
    """Sends spans to a collector.

    Args:
        endpoint: The collector's URL for OTLP over HTTP; `/v1/traces` is added. None: no tracing.

    Raises:
        ConfigurationError: The URL is invalid, or OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._tracer: Any = None
        if endpoint is None:
            return
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigurationError(f"--otlp-endpoint is a URL such as http://localhost:4318, not {endpoint!r}")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ConfigurationError(
                f"--otlp-endpoint needs {error.name}, which is not installed: pip install 'car-analyzer[tracing]'"
            ) from error
        # OpenTelemetry's own variables, such as OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER, still apply.
        name = os.environ.get("OTEL_SERVICE_NAME", "car-analyzer-gateway")
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("car_analyzer_gateway")

    @property
    def is_on(self) -> bool:
        """Whether tracing is configured."""
        return self._tracer is not None

    def request(self, method: str, path: str, headers: Headers) -> AbstractContextManager[Any]:
        """A span for a request, a child of the caller's span if the headers name one."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        attributes = {"http.request.method": method, "url.path": path}
        span: AbstractContextManager[Any] = self._tracer.start_as_current_span(
            f"{method} {path}", context=extract(dict(headers)), kind=SpanKind.SERVER, attributes=attributes
        )
        return span

    def photo(self, size: int, request_id: str) -> AbstractContextManager[Any]:
        """A span for one photo at Triton. The SDK sends its context along."""
        if not self.is_on:
            return contextlib.nullcontext()
        from opentelemetry.trace import SpanKind

        attributes = {"photo.bytes": size, "request.id": request_id}
        span: AbstractContextManager[Any] = self._tracer.start_as_current_span(
            "analyze photo", kind=SpanKind.CLIENT, attributes=attributes
        )
        return span

    async def close(self) -> None:
        """Send the remaining spans."""
        if self.is_on:
            await asyncio.to_thread(self._provider.shutdown)


class TracingMiddleware:
    """Creates a span for each request.

    Args:
        app: The next application.
        tracing: Creates the spans.
        paths: The paths that appear in names of spans; all others are `other`.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing, paths: frozenset[str]) -> None:
        self._app = app
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBE_PATHS:
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        with self._tracing.request(scope["method"], path, Headers(scope=scope)) as span:

            async def send_and_record(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    span.set_attribute("request.id", scope["state"]["request_id"])
                    if message["status"] >= 500:
                        from opentelemetry.trace import StatusCode

                        span.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, send_and_record)


def traces_url(endpoint: str) -> str:
    """The collector's URL for traces."""
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"
