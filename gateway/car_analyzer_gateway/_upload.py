"""Reads photos from a request's body, in memory and within limits. Only Triton decodes them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from python_multipart.multipart import parse_options_header

from ._body import MultipartBody, RawBody
from ._errors import ClientDisconnectedError, GatewayError, bad_request, busy, photo_too_large

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.datastructures import Headers
    from starlette.types import Receive

    from ._body import Body
    from ._byte_budget import ByteBudget, Reservation
    from ._settings import Settings

RAW_TYPES = ("image/", "application/octet-stream")


@dataclass(frozen=True)
class Photo:
    """A photo's bytes and their reservation, which has to be released when the photo is done."""

    data: bytes
    reservation: Reservation


class Upload:
    """The photos of one request, as they arrive.

    Args:
        headers: The request's headers.
        receive: ASGI's function that returns the body.
        settings: The limits.
        budget: The bytes that all uploads share.
        timeout: Seconds for an answer, after the upload.

    Raises:
        GatewayError: The headers show that the body contains no photo, or is too large.
    """

    def __init__(
        self, headers: Headers, receive: Receive, settings: Settings, budget: ByteBudget, timeout: float
    ) -> None:
        self._receive = receive
        self._settings = settings
        self._budget = budget
        length = headers.get("content-length")
        self._bytes_left = None if length is None else int(length)
        self._ended = False
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._body = self._open(headers)

    @property
    def time_left(self) -> float:
        """The seconds left for an answer; waiting for the byte budget has used some of them."""
        return max(0.001, self._deadline - time.monotonic())

    async def photos(self) -> AsyncGenerator[Photo, None]:
        """Read the body photo by photo. The next photo is read only after its bytes are reserved.

        Raises:
            GatewayError: There is no photo, it is too large or too slow, or the budget was used up for too long.
            ClientDisconnectedError: The client closed the connection.
        """
        while not self._ended:
            reservation = await self._reserve()
            try:
                started = time.monotonic()
                await self._read()
                # The time that the client needs does not count.
                self._deadline += time.monotonic() - started
                while self._body.photos:
                    # A local variable would keep the photo in memory during `yield`.
                    yield self._next_photo(reservation)
            finally:
                # Keep nothing while waiting for more: uploads could block each other for ever.
                reservation.release()

    def _next_photo(self, reservation: Reservation) -> Photo:
        data = self._body.photos.pop(0)
        return Photo(data, reservation.split(len(data)))

    def _open(self, headers: Headers) -> Body:
        settings, length = self._settings, self._bytes_left or 0
        if headers.get("content-encoding", "identity") != "identity":
            raise GatewayError(415, "media_type", "Photos are sent as they are, without a Content-Encoding.")
        header = headers.get("content-type", "")
        if not header and not length and "transfer-encoding" not in headers:
            raise bad_request("No photo: the request has no body. Send one as the multipart field 'image'.")
        kind, options = parse_options_header(header)
        media_type = kind.decode("latin-1").lower()
        if media_type == "multipart/form-data":
            if length > settings.max_body_bytes:
                raise _body_too_large(settings)
            boundary = options.get(b"boundary")
            if not boundary:
                raise bad_request("The Content-Type multipart/form-data has no boundary; let your HTTP library set it.")
            return MultipartBody(boundary, length, settings)
        if media_type.startswith(RAW_TYPES):
            if length > settings.max_photo_bytes:
                raise photo_too_large(settings.max_photo_bytes)
            return RawBody(length, settings)
        message = "Send the photo as the multipart field 'image', or as the body with its type, such as image/jpeg"
        raise GatewayError(415, "media_type", f"{message}, not {media_type[:100]}." if media_type else f"{message}.")

    async def _reserve(self) -> Reservation:
        size = int(self._settings.max_photo_bytes)
        if self._bytes_left is not None:
            size = min(size, self._bytes_left)
        try:
            with anyio.fail_after(self.time_left):
                return await self._budget.reserve(size)
        except TimeoutError:
            raise busy(f"no budget for {size:,} bytes within {self.timeout:g} s") from None

    async def _read(self) -> None:
        """Read until a photo is complete, or the body ends."""
        seconds = self._settings.upload_timeout
        try:
            with anyio.fail_after(seconds):
                while not self._body.photos and not self._ended:
                    await self._read_chunk()
        except TimeoutError:
            message = f"The photo did not arrive within {seconds:g} seconds."
            raise GatewayError(408, "upload_timeout", message, headers={"Connection": "close"}) from None

    async def _read_chunk(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        data = message.get("body", b"")
        if self._bytes_left is not None:
            self._bytes_left = max(0, self._bytes_left - len(data))
        self._body.feed(data)
        if not message.get("more_body", False):
            self._ended = True
            self._body.end()


def _body_too_large(settings: Settings) -> GatewayError:
    message = f"at most {settings.max_photos} photos of {settings.max_photo_bytes:,} bytes are accepted"
    return GatewayError(413, "too_large", f"The request is too large; {message}.")
