"""Sends a share of the answered photos to a candidate version, too, and compares its answers: `/shadow`.

`car-analyzer publish --shadow` controls this. Callers get the served version's answers only.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from car_analyzer import AsyncCarAnalyzer, CarAnalyzerError, OverloadedError, Retry

from ._comparison import Comparison
from ._errors import ClientDisconnectedError, GatewayError
from ._logs import logger

if TYPE_CHECKING:
    from starlette.requests import Request

    from ._metrics import Metrics
    from ._observers import AnsweredPhoto
    from ._settings import Settings

PATH, PHOTO_PATH = "/shadow", "/shadow/photo"
PATHS = frozenset({PATH, PHOTO_PATH})
# The limits for what a candidate can take from the served version, however slow it is.
MOST_IN_FLIGHT = 2
MOST_WAITING = 6
MOST_HELD_BYTES = 32_000_000
# Without a request for so long, the publication was killed.
LEASE_S = 60.0
HEALTH_S = 5.0
MOST_BODY_BYTES = 10_000
# An error of the candidate is one of the results.
NO_RETRY = Retry(attempts=1)


class Order(BaseModel):
    """The body of `PUT /shadow`.

    Attributes:
        model: The candidate's name.
        export_id: The id of its export.
        served_export_id: That of the version to compare it with.
        share: The share of the answered photos to send to it.
        photos: How many photos to compare.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    model: str = Field(min_length=1)
    export_id: str | None
    served_export_id: str | None
    share: float = Field(gt=0, le=1)
    photos: int = Field(ge=1, le=1_000_000)


class Run:
    """One comparison, until it is closed.

    Args:
        order: What to compare.
        client: A client of the candidate.
        metrics: Counts the outcomes.
    """

    def __init__(self, order: Order, client: AsyncCarAnalyzer, metrics: Metrics) -> None:
        self.order = order
        self.comparison = Comparison()
        self._client = client
        self._metrics = metrics
        self._places = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_bytes = 0

    def see(self, answered: AnsweredPhoto) -> None:
        """Send the photo to the candidate, if it is of the share and there is room."""
        if answered.analysis.export_id != self.order.served_export_id or random.random() >= self.order.share:  # noqa: S311
            return
        if self.comparison.compared + len(self._tasks) >= self.order.photos:
            return
        is_full = len(self._tasks) >= MOST_IN_FLIGHT + MOST_WAITING
        if is_full or (self._tasks and self._held_bytes + len(answered.photo) > MOST_HELD_BYTES):
            self._count(self.comparison.skip())
            return
        self._held_bytes += len(answered.photo)
        # In a context of its own: these calls are no part of the request's trace.
        task = contextvars.Context().run(asyncio.create_task, self._compare(answered))
        self._tasks.add(task)
        size = len(answered.photo)

        def on_done(_: object) -> None:
            self._tasks.discard(task)
            self._held_bytes -= size

        task.add_done_callback(on_done)

    async def close(self) -> None:
        """Abandon the photos in flight and close the connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def _compare(self, answered: AnsweredPhoto) -> None:
        try:
            async with self._places:
                candidate = await self._client.analyze(answered.photo, request_id=f"{answered.request_id}-shadow")
            outcome = self.comparison.add(answered, candidate)
        except OverloadedError:  # the machine is busy, which is not the candidate's fault
            outcome = self.comparison.skip()
        except CarAnalyzerError as error:
            outcome = self._fail(error.code, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a candidate does is counted
            outcome = self._fail("service.failed", repr(error))
        self._count(outcome)

    def _fail(self, code: str, reason: str) -> str:
        logger.warning("the candidate failed on a photo", extra={"fields": {"code": code, "reason": reason}})
        return self.comparison.fail(code)

    def _count(self, outcome: str) -> None:
        self._metrics.shadow.labels(outcome).inc()


class Shadow:
    """The observer and the endpoints. There is at most one comparison at a time.

    Args:
        settings: For the connection to Triton.
        served: The client of the served version.
        metrics: Counts the outcomes.

    Attributes:
        run: The comparison, if there is one.
    """

    def __init__(self, settings: Settings, served: AsyncCarAnalyzer, metrics: Metrics) -> None:
        self.run: Run | None = None
        self._settings = settings
        self._served = served
        self._metrics = metrics
        self._lease: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        """The endpoints. `TokenMiddleware` protects them with the administrator's key."""
        handlers = {"PUT": self._start, "GET": self._show, "DELETE": self._stop}

        async def answer(request: Request) -> Response:
            return await handlers["GET" if request.method == "HEAD" else request.method](request)

        return [Route(PATH, answer, methods=list(handlers)), Route(PHOTO_PATH, self._photo)]

    async def open(self) -> None:
        """Do nothing: a comparison starts with a request."""

    def see(self, answered: AnsweredPhoto) -> None:
        """Let the comparison see a photo, if there is one."""
        if self.run is not None:
            self.run.see(answered)

    async def close(self) -> None:
        """End the comparison."""
        run, self.run = self.run, None
        if self._lease is not None:
            self._lease.cancel()
        if run is not None:
            logger.info("the comparison has ended", extra={"fields": dict(run.comparison.outcomes)})
            await run.close()

    async def _start(self, request: Request) -> Response:
        order = await _read(request)
        client = self.connect(order.model)
        try:
            self._check_idle()
            await self._check(client, order)
            self._check_idle()  # another request may have started one meanwhile
        except BaseException:
            await client.close()
            raise
        self.run = Run(order, client, self._metrics)
        self._renew()
        logger.info("a comparison has started", extra={"fields": order.model_dump()})
        return JSONResponse(self._body(is_full=False), 201)

    async def _show(self, request: Request) -> Response:
        detail = request.query_params.get("detail")
        if detail not in (None, "full"):
            raise GatewayError(400, "request", "The parameter detail has one value, full.")
        if self.run is None:
            health = await self._served.health(HEALTH_S)
            return JSONResponse({"running": False, "servedExportId": health.export_id})
        self._renew()
        return JSONResponse(self._body(is_full=detail == "full"))

    async def _stop(self, _request: Request) -> Response:
        await self.close()
        return Response(status_code=204)

    async def _photo(self, request: Request) -> Response:
        number = request.query_params.get("number", "")
        photos = self.run.comparison.photos if self.run is not None else []
        if number not in map(str, range(len(photos))):
            raise GatewayError(404, "not_found", "There is no such photo.")
        self._renew()
        headers = {"Content-Disposition": "attachment", "Cache-Control": "no-store"}
        return Response(photos[int(number)], media_type="application/octet-stream", headers=headers)

    def connect(self, model: str) -> AsyncCarAnalyzer:
        """Create a client of the candidate."""
        settings = self._settings
        return AsyncCarAnalyzer(settings.url, timeout=settings.timeout, retry=NO_RETRY, model=model, tls=settings.tls)

    def _check_idle(self) -> None:
        if self.run is not None:
            raise _conflict("The gateway compares another candidate already.")

    async def _check(self, client: AsyncCarAnalyzer, order: Order) -> None:
        served, candidate = await asyncio.gather(self._served.health(HEALTH_S), client.health(HEALTH_S))
        if not served.ready or served.export_id != order.served_export_id:
            raise _conflict(
                f"The gateway's Triton serves export {served.export_id}, not {order.served_export_id}."
                if served.ready
                else "The gateway's Triton is not ready."
            )
        if not candidate.ready or candidate.export_id != order.export_id:
            raise _conflict(f"The gateway's Triton has no model {order.model} of export {order.export_id}.")

    def _body(self, *, is_full: bool) -> dict[str, Any]:
        assert self.run is not None  # noqa: S101 - checked by the callers
        order = self.run.order.model_dump(by_alias=True)
        return {"running": True, **order, **self.run.comparison.body(is_full=is_full)}

    def _renew(self) -> None:
        if self._lease is not None:
            self._lease.cancel()
        self._lease = asyncio.get_running_loop().call_later(LEASE_S, self._end_lease)

    def _end_lease(self) -> None:
        logger.warning("nobody has asked for the comparison; it ends", extra={"fields": {"seconds": LEASE_S}})
        self._ending = asyncio.create_task(self.close())


async def _read(request: Request) -> Order:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BODY_BYTES:
                raise GatewayError(413, "too_large", f"The body is too large; at most {MOST_BODY_BYTES:,} bytes.")
    except ClientDisconnect:
        raise ClientDisconnectedError from None
    try:
        return Order.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the body"
        raise GatewayError(400, "request", f"{field}: {first['msg']}.") from None


def _conflict(message: str) -> GatewayError:
    return GatewayError(409, "conflict", message)
