"""The ASGI application: routes and middleware."""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from ._collection import Collection
from ._docs import DOCS_POLICY, render_docs
from ._errors import GatewayError
from ._feedback import Feedback
from ._gateway import Gateway
from ._middleware import CorsMiddleware, ErrorMiddleware, RequestMiddleware, TokenMiddleware
from ._openapi import describe
from ._shadow import PATHS as SHADOW_PATHS
from ._shadow import Shadow
from ._static import static_routes
from ._tracing import TracingMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from ._settings import Settings

EXPOSED_HEADERS = ["X-Request-ID", "Retry-After", "Model-Version", "Export-Id", "Exif-Rotation"]


def make_app(settings: Settings) -> Starlette:
    """Create the application, for `car-analyzer gateway` or any other ASGI server.

    Args:
        settings: See `Settings`.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    token = settings.read_token()
    admin_key = settings.read_admin_key()
    gateway = Gateway(settings)
    document = describe(settings, needs_token=token is not None)

    async def openapi(_request: Request) -> Response:
        return JSONResponse(document)

    async def docs(_request: Request) -> Response:
        return HTMLResponse(render_docs(document), headers={"Content-Security-Policy": DOCS_POLICY})

    routes = [
        Route("/analyze", gateway.analyze, methods=["POST"]),
        Route("/health", gateway.health),
        Route("/metrics", gateway.render_metrics),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        *static_routes(),
    ]
    collection = None if settings.collect is None else Collection(settings, gateway.metrics.registry)
    if collection is not None:
        gateway.observers.append(collection)
        feedback = Feedback(collection, settings.upload_timeout)
        routes += [Route("/feedback", feedback.show), Route("/feedback", feedback.take, methods=["POST"])]
    if settings.drift:
        from ._drift import open_drift  # needs numpy, which takes long to import

        keep = None if collection is None else collection.keep
        gateway.observers.append(open_drift(settings, gateway.metrics.registry, keep))
    if admin_key is not None:
        shadow = Shadow(settings, gateway.client, gateway.metrics)
        gateway.observers.append(shadow)
        routes += shadow.routes()
    paths = frozenset(route.path for route in routes)
    logs = settings.access_log != "off"
    middleware = [Middleware(RequestMiddleware, metrics=gateway.metrics, paths=paths, logs=logs)]
    if gateway.tracing.is_on:
        middleware.append(Middleware(TracingMiddleware, tracing=gateway.tracing, paths=paths))
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CorsMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
                expose_headers=EXPOSED_HEADERS,
            )
        )
    middleware.append(Middleware(ErrorMiddleware))
    if token is not None:
        protected = None if settings.protect == "all" else frozenset({"/analyze", "/feedback"})
        middleware.append(Middleware(TokenMiddleware, token=token, paths=protected, but=SHADOW_PATHS))
    if admin_key is not None:
        middleware.append(Middleware(TokenMiddleware, token=admin_key, paths=SHADOW_PATHS))

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await gateway.open()
        yield
        await gateway.close()

    handlers: dict[Any, Any] = {HTTPException: _raise_http_error}
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)
    # No redirect from /analyze/ to /analyze: the client would send the photo twice.
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    return app


async def _raise_http_error(request: Request, error: HTTPException) -> NoReturn:
    path, method = request.url.path, request.method
    messages = {404: f"There is nothing at {path}.", 405: f"{path} does not take {method}."}
    kind = {404: "not_found", 405: "method"}.get(error.status_code, "request")
    message = messages.get(error.status_code, HTTPStatus(error.status_code).phrase)
    raise GatewayError(error.status_code, kind, message, headers=error.headers) from error
