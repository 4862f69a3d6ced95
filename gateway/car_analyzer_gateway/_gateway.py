"""The endpoints and their shared state."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from car_analyzer import Analysis, AsyncCarAnalyzer, CarAnalyzerError, Retry

from ._byte_budget import ByteBudget
from ._errors import GatewayError, bad_request, busy, from_sdk, stopping
from ._explanations import Turns, explanations
from ._logs import logger
from ._memory import CompletedPhotos, FailedPhotos
from ._metrics import Metrics
from ._observers import AnsweredPhoto
from ._tracing import Tracing
from ._upload import Photo, Upload

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from ._observers import Observer
    from ._settings import Settings

# Enough while a Triton process restarts. After that, callers get the error and decide themselves.
RETRY = Retry(attempts=6, connect_patience=2.0, reconnect_patience=2.0)
# Below the default timeout of a Kubernetes probe, one second.
HEALTH_S = 0.9
HEAD_FIELDS = ("label", "confidence", "probabilities", "logits", "labels")
# An explanation can take a network's time for 65 photos. Further ones wait, so that they do not hold up other callers.
EXPLAINED_AT_ONCE = 2


class Gateway:
    """A gateway to one Triton.

    Args:
        settings: See `Settings`.

    Raises:
        ConfigurationError: The URL is invalid, or a library for tracing is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = AsyncCarAnalyzer(
            settings.url, timeout=settings.timeout, retry=RETRY, model=settings.model, tls=settings.tls
        )
        self.budget = ByteBudget(settings.max_held_bytes)
        self.metrics = Metrics(self.budget)
        self.tracing = Tracing(settings.otlp_endpoint)
        self.stopping = False
        self.in_flight = 0
        self._logs_answers = settings.access_log == "answers"
        self._pending = 0
        self._explaining = Turns(EXPLAINED_AT_ONCE)
        self._completed_photos = CompletedPhotos()
        self._failed_photos = FailedPhotos()
        self.observers: list[Observer] = []

    @property
    def is_busy(self) -> bool:
        """Whether the maximum number of photos is waiting."""
        return self._pending + self.budget.waiting >= self.settings.max_waiting

    def count_rejected(self) -> None:
        """Count a request that was rejected before it was read."""
        self.metrics.count_request("/analyze", "POST", 503, 0.0)
        self.metrics.errors.labels("busy").inc()

    async def analyze(self, request: Request) -> Response:
        """`POST /analyze`."""
        # A client that keeps its connection cannot know that this is the wrong server by now.
        if self.stopping and not request.scope["state"].get("is_early", False):
            raise stopping()
        is_full = _has(request.query_params, "detail", "full")
        explain = _has(request.query_params, "explain", "1")
        timeout = _timeout(request.query_params, self.settings.timeout)
        self.in_flight += 1
        try:
            answers = await self._analyze_all(request, timeout, explain=explain)
        except GatewayError as error:
            self._close_after(error)
            raise
        finally:
            self.in_flight -= 1
        analyses = [answer for answer in answers if isinstance(answer, Analysis)]
        identity = _identity(analyses)
        headers = {name.title().replace("_", "-"): value for name, value in identity.items()}
        request.state.log_fields.update(identity, photos=len(answers))
        if self._logs_answers:
            request.state.log_fields["answers"] = [
                answer.to_dict() if isinstance(answer, Analysis) else answer.body() for answer in answers
            ]
        if (rotations := {analysis.exif_rotation for analysis in analyses}) and None not in rotations:
            headers["Exif-Rotation"] = str(rotations == {True}).lower()
        if self.stopping:
            headers["Connection"] = "close"
        if len(answers) == 1 and isinstance(answers[0], GatewayError):
            self._close_after(answers[0])
            raise answers[0]
        bodies = [self._body(answer, is_full=is_full) for answer in answers]
        if explain:
            for body, answer in zip(bodies, answers, strict=True):
                if isinstance(answer, Analysis):
                    # In a thread: drawing takes a while.
                    body["explanations"] = await asyncio.to_thread(explanations, answer, with_maps=is_full)
        return JSONResponse(bodies if len(bodies) > 1 else bodies[0], headers=headers)

    async def health(self, _request: Request) -> Response:
        """`GET /health`."""
        if self.stopping:
            return _unavailable("the gateway is stopping")
        health = await self.client.health(HEALTH_S)
        if health.ready:
            known = health.to_dict()
            body: dict[str, Any] = {key: known[key] for key in ("status", "description", "demo") if key in known}
            if self.settings.collect is not None:
                body["feedback"] = True
            return JSONResponse(body, headers={"Cache-Control": "no-store"})
        logger.warning("not ready", extra={"fields": {"reason": health.message}})
        # Without models, the connection failed: the message contains addresses.
        return _unavailable(str(health.message) if health.models else "the model server cannot be reached")

    async def render_metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        text, content_type = self.metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    async def open(self) -> None:
        """Connect to Triton before the first photo arrives."""
        health = await self.client.health(HEALTH_S)
        if not health.ready:
            logger.warning("Triton is not ready yet", extra={"fields": {"url": health.url, "reason": health.message}})
        for observer in self.observers:
            await observer.open()

    async def close(self) -> None:
        """Complete what observers have begun, close the connection to Triton, and send the last traces."""
        # The collection comes first, and keeps photos until the comparison, which names some, has ended.
        for observer in reversed(self.observers):
            await observer.close()
        await self.client.close()
        await self.tracing.close()

    async def _analyze_all(self, request: Request, timeout: float, *, explain: bool) -> list[Analysis | GatewayError]:
        upload = Upload(request.headers, request.receive, self.settings, self.budget, timeout)
        tasks: list[asyncio.Task[Analysis | GatewayError]] = []
        try:
            async with contextlib.aclosing(upload.photos()) as photos:
                async for photo in photos:
                    if not tasks and self.is_busy:
                        # Other requests arrived while this one was read.
                        photo.reservation.release()
                        raise busy(f"{self.settings.max_waiting} photos are already waiting")
                    self.metrics.photos.observe(len(photo.data))
                    if self._logs_answers:
                        request.state.log_fields.setdefault("photo_bytes", []).append(len(photo.data))
                    name = request.state.request_id if not tasks else f"{request.state.request_id}-{len(tasks) + 1}"
                    tasks.append(self._start(photo, name, upload, explain=explain))
                    # The name would keep the photo in memory until the next one arrives.
                    del photo
                    _raise_service_error([task.result() for task in tasks if task.done()])
            answers = [await task for task in tasks]
            _raise_service_error(answers)
            return answers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self, photo: Photo, request_id: str, upload: Upload, *, explain: bool
    ) -> asyncio.Task[Analysis | GatewayError]:
        task = asyncio.create_task(self._analyze(photo.data, request_id, upload, explain=explain))
        self._pending += 1
        # A callback, because a task that is cancelled early never starts.
        size, reservation = len(photo.data), photo.reservation

        def on_done(_: object) -> None:
            self._pending -= 1
            reservation.release()
            self._completed_photos.add(size, idle=not self.budget.used)

        task.add_done_callback(on_done)
        return task

    async def _analyze(
        self, photo: bytes, request_id: str, upload: Upload, *, explain: bool
    ) -> Analysis | GatewayError:
        if not photo:
            return GatewayError(400, "photo", "The photo is empty: it has 0 bytes.", code="photo.empty")
        try:
            with self.tracing.photo(len(photo), request_id):
                async with self._explaining.take(upload) if explain else contextlib.nullcontext():
                    analysis = await self.client.analyze(
                        photo, timeout=upload.time_left, request_id=request_id, explain=explain
                    )
        except CarAnalyzerError as error:
            answer = from_sdk(error, upload.timeout)
            self._failed_photos.add(len(photo))
            return answer
        self.metrics.count_analysis(analysis)
        self._show(AnsweredPhoto(request_id, photo, analysis))
        return analysis

    def _close_after(self, error: GatewayError) -> None:
        """While the gateway stops, an error is the last response of its connection, as an answer is."""
        if self.stopping:
            error.headers["Connection"] = "close"

    def _show(self, answered: AnsweredPhoto) -> None:
        for observer in self.observers:
            try:
                observer.see(answered)
            except Exception:  # noqa: BLE001 - the answer is right whatever an observer does
                logger.exception("bug in what looks at answered photos")

    def _body(self, answer: Analysis | GatewayError, *, is_full: bool) -> dict[str, Any]:
        if isinstance(answer, GatewayError):
            self.metrics.errors.labels(answer.kind).inc()
            return answer.body()
        return _full_dict(answer) if is_full else answer.to_dict()


def _has(query: QueryParams, name: str, only: str) -> bool:
    value = query.get(name)
    if value not in (None, only):
        raise bad_request(f"The parameter {name} has one value, {only}; leave it out for the short answer.")
    return value is not None


def _timeout(query: QueryParams, limit: float) -> float:
    try:
        asked = float(query.get("timeout", limit))
    except ValueError:
        asked = math.nan
    if not 0 < asked < math.inf:
        raise bad_request("The parameter timeout is a number of seconds above zero.")
    return min(asked, limit)


def _full_dict(analysis: Analysis) -> dict[str, Any]:
    """The JSON of `?detail=full`, which has all that the SDK's results have."""
    heads = {name: {field: getattr(head, field) for field in HEAD_FIELDS} for name, head in analysis.heads.items()}
    return {**analysis.to_dict(with_model=True), "heads": heads}


def _identity(analyses: list[Analysis]) -> dict[str, str]:
    """The model that answered; several values if it was replaced in the meantime."""
    found = {
        "model_version": {analysis.version for analysis in analyses},
        "export_id": {analysis.export_id for analysis in analyses if analysis.export_id},
    }
    return {name: ", ".join(sorted(values)) for name, values in found.items() if values}


def _raise_service_error(answers: list[Analysis | GatewayError]) -> None:
    """Raise an error of the service: it concerns all photos, not one."""
    for answer in answers:
        if isinstance(answer, GatewayError) and answer.status != 400:
            raise answer


def _unavailable(reason: str) -> Response:
    return JSONResponse({"status": "unavailable", "error": reason}, 503, {"Cache-Control": "no-store"})
