"""Recent photos in memory, so that feedback finds them."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .names import Name
from .records import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._observers import AnsweredPhoto

# What a photo's answer takes, about.
RECORD_BYTES = 4096


@dataclass(frozen=True)
class Photo:
    """A photo that was answered.

    Attributes:
        time: When it was answered, in seconds since 1970.
        token: Distinguishes it from other photos of the same second.
        data: The file's bytes; None if they are only in the collection.
        record: The answer.
    """

    time: int
    token: str
    data: bytes | None
    record: Record

    def name(self, reason: str) -> Name:
        """The name of its files, if it is kept for this reason."""
        return Name(self.time, self.token, self.record.request_id, reason)

    @property
    def size(self) -> int:
        """What it takes in memory, about."""
        return len(self.data or b"") + RECORD_BYTES


class RecentPhotos:
    """The photos answered last.

    Args:
        max_bytes: How many bytes they may take.
        clock: The time, in seconds since 1970.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._clock = clock
        self._photos: OrderedDict[str, Photo] = OrderedDict()

    def get(self, request_id: str) -> Photo | None:
        """The photo of a request."""
        return self._photos.get(request_id)

    def add(self, answered: AnsweredPhoto) -> Photo:
        """Add a photo, and forget the oldest ones. Returns the same for a photo that was added before."""
        found = self._photos.get(answered.request_id)
        # The page sends a photo again, with the same id, to learn where its answers come from.
        if found is not None and found.data == answered.photo:
            return found
        now = self._clock()
        record = Record.of(answered.request_id, answered.analysis, now)
        photo = Photo(int(now), secrets.token_hex(4), answered.photo, record)
        if found is not None:
            self._forget(answered.request_id)
        self._photos[answered.request_id] = photo
        self.bytes += photo.size
        while self.bytes > self._max_bytes:
            self._forget(next(iter(self._photos)))
        return photo

    def _forget(self, request_id: str) -> None:
        self.bytes -= self._photos.pop(request_id).size
