"""A body that is one photo."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ._problems import no_photo, photo_too_large

if TYPE_CHECKING:
    from ._settings import Settings


class Raw:
    """Takes the body as it comes; see `Body`."""

    def __init__(self, settings: Settings) -> None:
        self.photos: list[bytes] = []
        self._limit = settings.max_photo_bytes
        self._photo = io.BytesIO()

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        if self._photo.tell() + len(data) > self._limit:
            raise photo_too_large(self._limit)
        self._photo.write(data)

    def end(self) -> None:
        """Hand over the photo."""
        if not self._photo.tell():
            raise no_photo("No photo: the request's body is empty.")
        self.photos.append(self._photo.getvalue())
        self._photo = io.BytesIO()
