"""The collection, as the gateway sees it: takes photos and feedback at once, and leaves the rest to its thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import random
import time
from typing import TYPE_CHECKING

from .._errors import busy
from .keeper import Keeper
from .metrics import CollectionMetrics
from .recent import Photo, RecentPhotos
from .storage import open_storage
from .writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from .._observers import AnsweredPhoto
    from .._settings import Settings
    from .records import Labels

# At the end, and for reading a record: longer than a storage needs that works.
PATIENCE_S = 3.0
# After so many seconds with one photo, the log says so.
STUCK_S = 10.0


class Collection:
    """Keeps photos to train with; see `Observer`.

    Args:
        settings: The gateway's settings; `collect` is the folder or URL.
        registry: For metrics.
        clock: The time, in seconds since 1970.
        chance: Returns a random number from 0 to 1.

    Raises:
        ConfigurationError: The folder cannot be written, or a library is missing.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.metrics = CollectionMetrics(registry)
        self._share = settings.collect_share
        self._chance = chance
        self._recent = RecentPhotos(settings.collect_recent_bytes)
        self._keeper = Keeper(
            open_storage(str(settings.collect)),
            settings.collect_photos,
            settings.collect_bytes,
            settings.collect_days,
            self.metrics,
            clock,
        )
        self._writer = Writer(self._keeper.start, self._keeper.refresh)

    async def open(self) -> None:
        """Start the thread that writes. It lists the folder first."""
        self._writer.open()

    def see(self, answered: AnsweredPhoto) -> None:
        """Remember a photo for feedback, and keep it if an answer is unsure, or by chance."""
        photo = self._recent.add(answered)
        if photo.record.is_unsure:
            self._keep(photo, "unsure")
        elif self._chance() < self._share:
            self._keep(photo, "share")

    def keep(self, answered: AnsweredPhoto, reason: str) -> None:
        """Keep a photo, unless there is no room.

        Args:
            answered: The photo.
            reason: Such as `drift`; one of `names.REASONS`.
        """
        self._keep(Photo.of(answered), reason)

    async def find(self, request_id: str) -> Photo | None:
        """The photo of a request, if it is in memory or kept; of the latter without its bytes.

        Raises:
            GatewayError: The storage does not answer.
        """
        photo = self._recent.get(request_id)
        if photo is not None or self._keeper.index.of_request(request_id) is None:
            return photo
        found: concurrent.futures.Future[Photo | None] = concurrent.futures.Future()

        def read() -> None:
            if found.set_running_or_notify_cancel():
                found.set_result(self._keeper.read(request_id))

        if not self._writer.add(read):
            raise busy("the collection's queue is full")
        try:
            return await asyncio.wait_for(asyncio.wrap_future(found), PATIENCE_S)
        except asyncio.TimeoutError:
            raise busy("the collection's storage does not answer") from None

    def label(self, photo: Photo, labels: Labels) -> None:
        """Keep a photo with the labels that people gave, in place of earlier ones.

        Args:
            photo: From `find`.
            labels: Head to the true label; for a multilabel head, to all true labels.

        Raises:
            GatewayError: The queue is full.
        """
        right = all(photo.record.confirms(head, label) for head, label in labels.items())
        if not self._keep(photo, "right" if right else "wrong", labels):
            raise busy("the collection's queue is full")
        self.metrics.count_feedback(photo.record, labels)

    async def close(self) -> None:
        """Write what waits, as far as the storage takes it within seconds."""
        left = await asyncio.to_thread(self._writer.close, PATIENCE_S)
        if left:
            self._keeper.warn("stopped", f"the storage is too slow: {left} photos were not written")

    def _keep(self, photo: Photo, reason: str, labels: Labels | None = None) -> bool:
        job = functools.partial(self._keeper.keep, photo, reason, labels)
        if self._writer.stuck_s > STUCK_S:
            self._keeper.warn("stuck", "the storage does not answer")
        if self._writer.add(job, photo.size):
            return True
        self._keeper.drop("queue")
        self._keeper.warn("queue", "the queue is full: the storage is slow, or does not answer")
        return False
