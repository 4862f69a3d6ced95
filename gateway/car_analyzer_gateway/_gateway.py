"""What the endpoints share, and what they do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from car_analyzer import Analysis, AsyncCarAnalyzer, CarAnalyzerError, Retry

from ._logs import logger
from ._memory import Litter
from ._metrics import Metrics
from ._problems import AnswerError, from_sdk, stopping, too_busy
from ._room import Room
from ._tracing import Tracing
from ._upload import Photo, Upload

if TYPE_CHECKING:
    from starlette.requests import Request

    from ._settings import Settings

# Enough to bridge a worker of Triton's that restarts. Longer than that, callers hear the truth and decide themselves.
RETRY = Retry(attempts=6, connect_patience=2.0, reconnect_patience=2.0)
# Below the second that Kubernetes gives a probe by default.
HEALTH_S = 0.9


class Gateway:
    """One gateway to one Triton.

    Args:
        settings: See `Settings`.

    Raises:
        ConfigurationError: The URL is none, or a library for traces is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = AsyncCarAnalyzer(
            settings.url, timeout=settings.timeout, retry=RETRY, model=settings.model, tls=settings.tls
        )
        self.room = Room(settings.max_held_bytes)
        self.metrics = Metrics(self.room)
        self.tracing = Tracing(settings.otlp_endpoint)
        self.stopping = False
        self.in_flight = 0
        self._asked = 0
        self._litter = Litter()

    @property
    def is_busy(self) -> bool:
        """Whether as many photos wait as may."""
        return self._asked + self.room.waiting >= self.settings.max_waiting

    def refuse(self) -> None:
        """Count a request that was refused before it was read."""
        self.metrics.count_request("/analyze", "POST", 503, 0.0)
        self.metrics.errors.labels("busy").inc()

    async def analyze(self, request: Request) -> Response:
        """`POST /analyze`."""
        if self.stopping:
            raise stopping()
        self.in_flight += 1
        try:
            answers = await self._analyze_all(request)
        finally:
            self.in_flight -= 1
        analyses = [answer for answer in answers if isinstance(answer, Analysis)]
        identity = _identity(analyses)
        headers = {name.title().replace("_", "-"): value for name, value in identity.items()}
        request.state.facts.update(identity, photos=len(answers))
        if len(answers) > 1:
            return JSONResponse([self._entry(answer) for answer in answers], headers=headers)
        if isinstance(answers[0], AnswerError):
            raise answers[0]
        return JSONResponse(answers[0].to_dict(), headers=headers)

    async def health(self, _request: Request) -> Response:
        """`GET /health`."""
        if self.stopping:
            return _unavailable("the gateway is stopping")
        health = await self.client.health(HEALTH_S)
        if health.ready:
            return JSONResponse({"status": "OK"}, headers={"Cache-Control": "no-store"})
        logger.warning("not ready", extra={"facts": {"reason": health.message}})
        # Without models it is the connection that failed; its message has addresses in it.
        return _unavailable(str(health.message) if health.models else "the model server cannot be reached")

    async def render_metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        text, content_type = self.metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    async def open(self) -> None:
        """Connect to Triton, so that the first photo does not have to wait for it."""
        health = await self.client.health(HEALTH_S)
        if not health.ready:
            logger.warning("Triton is not ready yet", extra={"facts": {"url": health.url, "reason": health.message}})

    async def close(self) -> None:
        """Let go of the connection to Triton, and send the last traces."""
        await self.client.close()
        await self.tracing.close()

    async def _analyze_all(self, request: Request) -> list[Analysis | AnswerError]:
        upload = Upload(request.headers, request.receive, self.settings, self.room)
        tasks: list[asyncio.Task[Analysis | AnswerError]] = []
        try:
            async with contextlib.aclosing(upload.photos()) as photos:
                async for photo in photos:
                    if not tasks and self.is_busy:
                        # Many more came while it was read.
                        photo.share.release()
                        raise too_busy(f"{self.settings.max_waiting} photos wait already")
                    self.metrics.photos.observe(len(photo.data))
                    name = request.state.request_id if not tasks else f"{request.state.request_id}-{len(tasks) + 1}"
                    tasks.append(self._start(photo, name, upload.patience))
                    # Named here until the next photo is there, it would be held for as long.
                    del photo
                    _check([task.result() for task in tasks if task.done()])
            answers = [await task for task in tasks]
            _check(answers)
            return answers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, photo: Photo, request_id: str, timeout: float) -> asyncio.Task[Analysis | AnswerError]:
        task = asyncio.create_task(self._analyze(photo.data, request_id, timeout))
        self._asked += 1
        # Not in the task itself: one that is cancelled early never starts.
        share = photo.share

        def end(_: object) -> None:
            self._asked -= 1
            share.release()

        task.add_done_callback(end)
        return task

    async def _analyze(self, photo: bytes, request_id: str, timeout: float) -> Analysis | AnswerError:
        if not photo:
            return AnswerError(400, "photo", "The photo is empty: it has 0 bytes.")
        try:
            with self.tracing.photo(len(photo), request_id):
                analysis = await self.client.analyze(photo, timeout=timeout, request_id=request_id)
        except CarAnalyzerError as error:
            answer = from_sdk(error, self.settings.timeout)
            self._litter.add(len(photo))
            return answer
        self.metrics.count_analysis(analysis)
        return analysis

    def _entry(self, answer: Analysis | AnswerError) -> dict[str, Any]:
        if isinstance(answer, AnswerError):
            self.metrics.errors.labels(answer.kind).inc()
            return {"error": answer.message}
        return answer.to_dict()


def _identity(analyses: list[Analysis]) -> dict[str, str]:
    """Which model answered; several values where it was replaced meanwhile."""
    found = {
        "model_version": {analysis.version for analysis in analyses},
        "export_id": {analysis.export_id for analysis in analyses if analysis.export_id},
    }
    return {name: ", ".join(sorted(values)) for name, values in found.items() if values}


def _check(answers: list[Analysis | AnswerError]) -> None:
    """Raise what went wrong on the service's side: it concerns all photos, not one."""
    for answer in answers:
        if isinstance(answer, AnswerError) and answer.status != 400:
            raise answer


def _unavailable(reason: str) -> Response:
    return JSONResponse({"status": "unavailable", "error": reason}, 503, {"Cache-Control": "no-store"})
