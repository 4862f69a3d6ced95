"""Compares the photos that arrive with those that the model was checked with.

Behind the answers: Triton's preprocess step gives the pixels of one photo at a time, and photos that arrive meanwhile
are skipped. After each window of photos, the scores of all statistics are metrics, and a log line names what changed.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from car_analyzer import CarAnalyzerError, ConfigurationError
from car_analyzer.drift import LEAST_PHOTOS, Observation, given_answers, photo_statistics
from car_analyzer.pixels import PixelSource

from ._logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from car_analyzer import Analysis
    from car_analyzer.drift import Comparison, Reference

    from ._observers import AnsweredPhoto
    from ._settings import Settings

WINDOW = 250
TIMEOUT_S = 10.0
CLOSE_S = 3.0
NAMED = 10
HELD_BYTES = 20_000_000


class _Seen(NamedTuple):
    request_id: str
    observation: Observation


class Drift:
    """An observer that compares photos with the reference in the config of the model that answered.

    Args:
        source: Of pixels and references.
        registry: For the metrics.
        share: The share of the photos to look at, above 0, up to 1.
        keep: Called with each photo that stands for a change, and the reason `drift`.
        window: The number of photos to compare at a time.
    """

    def __init__(
        self,
        source: PixelSource,
        registry: CollectorRegistry,
        share: float,
        keep: Callable[[AnsweredPhoto, str], None] | None = None,
        window: int = WINDOW,
    ) -> None:
        self._source = source
        self._share = share
        self._keep = keep
        self._size = window
        self._model: tuple[str, str | None] | None = None
        self._reference: Reference | None = None
        self._task: asyncio.Future[None] | None = None
        self._alarms: set[str] = set()
        self._seen: list[_Seen] = []
        self._held = _HeldPhotos()
        self.score = Gauge(
            "car_analyzer_drift_score",
            "Distance of the last window of photos from the recorded ones; chance stays below 1.",
            ("statistic",),
            registry=registry,
        )
        self.photos = Counter(
            "car_analyzer_drift_photos", "Photos for the comparison by outcome.", ("outcome",), registry=registry
        )
        self.reference_photos = Gauge(
            "car_analyzer_drift_reference_photos",
            "Photos recorded with the model; 0: it has no record, and nothing is compared.",
            registry=registry,
        )

    async def open(self) -> None:
        """Nothing: the first photo shows which model's reference is needed."""

    def see(self, answered: AnsweredPhoto) -> None:
        """Look at a photo, unless another one is being looked at."""
        if random.random() >= self._share:  # noqa: S311 - a sample, not a secret
            return
        if self._task is not None and not self._task.done():
            self.photos.labels("skipped").inc()
            return
        # Without the request's context: its id would be in the log lines about a whole window.
        self._task = contextvars.Context().run(asyncio.ensure_future, self._look(answered))

    async def close(self) -> None:
        """Wait for the photo that is being looked at, and close the connection."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_S)
            self._task.cancel()
        await self._source.close()

    async def _look(self, answered: AnsweredPhoto) -> None:
        outcome = "failed"
        try:
            outcome = await self._add(answered)
        except CarAnalyzerError as error:
            logger.debug("a photo was not compared", extra={"fields": {"reason": str(error)}})
        except Exception:  # noqa: BLE001 - the answer was sent; the next photo may do
            logger.exception("bug while a photo was compared")
        self.photos.labels(outcome).inc()

    async def _add(self, answered: AnsweredPhoto) -> str:
        analysis = answered.analysis
        if self._model != (analysis.version, analysis.export_id):
            await self._load(analysis)
        if self._reference is None:
            return "skipped"
        pixels = await self._source.pixels(
            answered.photo, analysis.version, analysis.export_id, answered.request_id, TIMEOUT_S
        )
        statistics, deviation = await asyncio.to_thread(_measure, pixels, answered.photo, self._reference)
        self._seen.append(_Seen(answered.request_id, Observation(statistics, given_answers(analysis.heads))))
        if self._keep is not None:
            self._held.add(answered, deviation)
        if len(self._seen) >= self._size:
            self._compare(self._reference)
        return "used"

    async def _load(self, analysis: Analysis) -> None:
        """Load the reference of the model that answered, and begin a new window."""
        problem = "the model was not checked on enough photos when it was exported"
        reference = None
        try:
            reference = await self._source.reference(analysis.version, TIMEOUT_S)
        except ConfigurationError as error:
            problem = str(error)
        self._model = (analysis.version, analysis.export_id)
        self._reference = reference
        self._restart()
        self._alarms.clear()
        self.score.clear()
        self.reference_photos.set(reference.photos if reference else 0)
        if reference is None:
            advice = f"export it with --check and a folder of at least {LEAST_PHOTOS} labelled photos"
            fields = {"reason": problem, "advice": advice, "model_version": analysis.version}
            logger.warning("photos are not compared (--drift)", extra={"fields": fields})

    def _compare(self, reference: Reference) -> None:
        found = reference.compare([one.observation for one in self._seen])
        for one in found:
            self.score.labels(one.statistic).set(one.score)
        alarms = [one for one in found if one.score >= 1]
        if begun := [one for one in alarms if one.statistic not in self._alarms]:
            ids = _most_extreme(self._seen, begun[0])
            fields = {
                "changes": [one.sentence for one in begun],
                "scores": {one.statistic: round(one.score, 2) for one in begun},
                "compared": len(self._seen),
                "recorded": reference.photos,
                "photos": ids,
            }
            logger.warning("the photos have changed", extra={"fields": fields})
            if self._keep is not None:
                for answered in self._held.find(ids):
                    self._keep(answered, "drift")
        elif self._alarms and not alarms:
            logger.info("the photos are like the recorded ones again")
        self._alarms = {one.statistic for one in alarms}
        self._restart()

    def _restart(self) -> None:
        self._seen = []
        self._held = _HeldPhotos()


def open_drift(
    settings: Settings, registry: CollectorRegistry, keep: Callable[[AnsweredPhoto, str], None] | None
) -> Drift:
    """Create the observer for the gateway's Triton; see `Drift`."""
    return Drift(PixelSource(settings.url, settings.model, settings.tls), registry, settings.drift, keep)


class _HeldPhotos:
    """The most unusual photos of a window, up to `HELD_BYTES`."""

    def __init__(self) -> None:
        self._photos: list[tuple[float, AnsweredPhoto]] = []
        self._bytes = 0

    def add(self, answered: AnsweredPhoto, deviation: float) -> None:
        self._photos.append((deviation, answered))
        self._bytes += len(answered.photo)
        if self._bytes > HELD_BYTES:
            self._photos.sort(key=lambda held: held[0])
        while self._bytes > HELD_BYTES:
            self._bytes -= len(self._photos.pop(0)[1].photo)

    def find(self, ids: list[str]) -> list[AnsweredPhoto]:
        return [answered for _, answered in self._photos if answered.request_id in ids]


def _measure(pixels: npt.NDArray[np.uint8], photo: bytes, reference: Reference) -> tuple[dict[str, float], float]:
    """A photo's statistics, and how unusual it is."""
    statistics = photo_statistics(pixels, photo)
    known = statistics.keys() & reference.values.keys()
    return statistics, max(abs(reference.deviation(name, statistics[name])) for name in known)


def _most_extreme(seen: list[_Seen], change: Comparison) -> list[str]:
    """The request ids of the photos that stand for a change most."""
    name = change.statistic
    if change.head is None:
        having = [one for one in seen if name in one.observation.statistics]
        having.sort(key=lambda one: one.observation.statistics[name], reverse=change.rises)
    else:
        having = [one for one in seen if change.label in one.observation.answers.get(change.head, ())]
    return [one.request_id for one in having[:NAMED]]
