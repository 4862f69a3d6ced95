"""Recent photos in memory, so that feedback finds them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .names import Name
from .records import Record

if TYPE_CHECKING:
    from .._observers import AnsweredPhoto

# What a photo's answer takes, about.
RECORD_BYTES = 4096


@dataclass(frozen=True)
class Photo:
    """A photo that was answered.

    Attributes:
        time: When it was answered, in seconds since 1970.
        data: The file's bytes; None if they are only in the collection.
        record: The answer.
        token: That of its name, if it is in the collection.
    """

    time: int
    data: bytes | None
    record: Record
    token: str | None = None

    @classmethod
    def of(cls, answered: AnsweredPhoto) -> Photo:
        """A photo that was answered just now, or a while ago."""
        record = Record.of(answered.request_id, answered.analysis, answered.time)
        return cls(int(answered.time), answered.photo, record)

    def name(self, reason: str) -> Name:
        """The name of its files, if it is kept for this reason."""
        # The page sends a photo again, with the same id, to learn where its answers come from: it gets the same token.
        token = self.token or hashlib.blake2b(self.data or b"", digest_size=4).hexdigest()
        return Name(self.time, token, self.record.request_id, reason)

    @property
    def size(self) -> int:
        """What it takes in memory, about."""
        return len(self.data or b"") + RECORD_BYTES


class RecentPhotos:
    """The photos answered last.

    Args:
        max_bytes: How many bytes they may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._photos: OrderedDict[str, Photo] = OrderedDict()

    def get(self, request_id: str) -> Photo | None:
        """The photo of a request."""
        return self._photos.get(request_id)

    def add(self, answered: AnsweredPhoto) -> Photo:
        """Add a photo, in place of one with the same request id, and forget the oldest ones."""
        photo = Photo.of(answered)
        if answered.request_id in self._photos:
            self._forget(answered.request_id)
        self._photos[answered.request_id] = photo
        self.bytes += photo.size
        while self.bytes > self._max_bytes:
            self._forget(next(iter(self._photos)))
        return photo

    def _forget(self, request_id: str) -> None:
        self.bytes -= self._photos.pop(request_id).size
