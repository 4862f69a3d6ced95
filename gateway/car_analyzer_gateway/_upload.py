"""From a request's body to photos, in memory and within limits. What a photo is, Triton decides: nothing is decoded.

Starlette's own form parser puts files above 1 MB on disk, so the parser below it is used directly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio
from python_multipart.multipart import parse_options_header

from ._form import Form
from ._problems import AnswerError, ClientGoneError, no_photo, photo_too_large, too_busy
from ._raw import Raw

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.datastructures import Headers
    from starlette.types import Receive

    from ._room import Room, Share
    from ._settings import Settings

RAW_TYPES = ("image/", "application/octet-stream")


@dataclass(frozen=True)
class Photo:
    """A photo's bytes, and the room they take. Whoever is done with the photo releases its share."""

    data: bytes
    share: Share


class Body(Protocol):
    """Takes a body in pieces, and has the photos that are complete."""

    photos: list[bytes]

    def feed(self, data: bytes) -> None:
        """Take the next piece."""

    def end(self) -> None:
        """There are no more pieces."""


class Upload:
    """The photos of one request, as they come in.

    Args:
        headers: The request's.
        receive: Where its body comes from.
        settings: The limits.
        room: The bytes that all uploads share.

    Raises:
        AnswerError: The headers alone say that it is no photo or too large.
    """

    def __init__(self, headers: Headers, receive: Receive, settings: Settings, room: Room) -> None:
        self._receive = receive
        self._settings = settings
        self._room = room
        length = headers.get("content-length")
        self._left = None if length is None else int(length)
        self._ended = False
        self._deadline = time.monotonic() + settings.timeout
        self._body = self._open(headers)

    @property
    def patience(self) -> float:
        """How many of the seconds for an answer were not spent on waiting for room."""
        return max(0.001, self._deadline - time.monotonic())

    async def photos(self) -> AsyncGenerator[Photo, None]:
        """Read the body, a photo at a time. The next is only read when there is room for it.

        Raises:
            AnswerError: It is no photo, too large, too slow, or there was no room in time.
            ClientGoneError: The caller hung up.
        """
        while not self._ended:
            share = await self._take()
            try:
                started = time.monotonic()
                await self._read()
                # The time a client takes is its own, not the service's.
                self._deadline += time.monotonic() - started
                while self._body.photos:
                    # Without a name of its own: while this waits at `yield`, it would hold the bytes.
                    yield self._hand_over(share)
            finally:
                # None is kept while waiting for more, or uploads could wait for each other for ever.
                share.release()

    def _hand_over(self, share: Share) -> Photo:
        data = self._body.photos.pop(0)
        return Photo(data, share.split(len(data)))

    def _open(self, headers: Headers) -> Body:
        settings = self._settings
        if headers.get("content-encoding", "identity") != "identity":
            raise AnswerError(415, "media_type", "Photos are sent as they are, without a Content-Encoding.")
        header = headers.get("content-type", "")
        if not header and not self._left and "transfer-encoding" not in headers:
            raise no_photo("No photo: the request has no body. Send one as the multipart field 'image'.")
        kind, options = parse_options_header(header)
        media_type = kind.decode("latin-1").lower()
        if media_type == "multipart/form-data":
            if (self._left or 0) > settings.max_body_bytes:
                raise _body_too_large(settings)
            boundary = options.get(b"boundary")
            if not boundary:
                raise no_photo("The Content-Type multipart/form-data has no boundary; let your HTTP library set it.")
            return Form(boundary, settings)
        if media_type.startswith(RAW_TYPES):
            if (self._left or 0) > settings.max_photo_bytes:
                raise photo_too_large(settings.max_photo_bytes)
            return Raw(settings)
        message = "Send the photo as the multipart field 'image', or as the body with its type, such as image/jpeg"
        raise AnswerError(415, "media_type", f"{message}, not {media_type[:100]}." if media_type else f"{message}.")

    async def _take(self) -> Share:
        size = int(self._settings.max_photo_bytes)
        if self._left is not None:
            size = min(size, self._left)
        try:
            with anyio.fail_after(self.patience):
                return await self._room.take(size)
        except TimeoutError:
            raise too_busy(f"no room for {size:,} bytes within {self._settings.timeout:g} s") from None

    async def _read(self) -> None:
        """Read until a photo is complete, or all is read."""
        seconds = self._settings.upload_timeout
        try:
            with anyio.fail_after(seconds):
                while not self._body.photos and not self._ended:
                    await self._read_piece()
        except TimeoutError:
            message = f"The photo did not arrive within {seconds:g} seconds."
            raise AnswerError(408, "upload_timeout", message, headers={"Connection": "close"}) from None

    async def _read_piece(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        data = message.get("body", b"")
        if self._left is not None:
            self._left = max(0, self._left - len(data))
        self._body.feed(data)
        if not message.get("more_body", False):
            self._ended = True
            self._body.end()


def _body_too_large(settings: Settings) -> AnswerError:
    message = f"at most {settings.max_photos} photos of {settings.max_photo_bytes:,} bytes are accepted"
    return AnswerError(413, "too_large", f"The request is too large; {message}.")
