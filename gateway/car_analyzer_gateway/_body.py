"""Request bodies, parsed while they arrive: a multipart form with photos, or one raw photo.

Starlette's form parser writes files above 1 MB to disk, so the underlying parser is used directly.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ._errors import GatewayError, bad_request, photo_too_large

if TYPE_CHECKING:
    from ._settings import Settings

FIELD = "image"
# Clients may send other fields with the photo. They are ignored, but their number is limited.
MAX_OTHER_FIELDS = 100


class Body(Protocol):
    """Takes a body in chunks, and has the photos that are complete."""

    photos: list[bytes]

    def feed(self, data: bytes) -> None:
        """Take the next chunk."""

    def end(self) -> None:
        """Finish after the last chunk."""


class RawBody:
    """A body that is one photo; see `Body`.

    Args:
        length: The body's length; 0 if it is not known.
        settings: The limits.
    """

    def __init__(self, length: int, settings: Settings) -> None:
        self.photos: list[bytes] = []
        self._limit = settings.max_photo_bytes
        self._photo = _buffer(min(length, self._limit))

    def feed(self, data: bytes) -> None:
        """Take the next chunk."""
        if self._photo.tell() + len(data) > self._limit:
            raise photo_too_large(self._limit)
        self._photo.write(data)

    def end(self) -> None:
        """Complete the photo."""
        if not self._photo.tell():
            raise bad_request("No photo: the request's body is empty.")
        self.photos.append(_content(self._photo))
        self._photo = io.BytesIO()


class MultipartBody:
    """A multipart form with photos; see `Body`.

    Args:
        boundary: What separates the parts.
        length: The body's length; 0 if it is not known.
        settings: The limits.

    Raises:
        GatewayError: The boundary is invalid.
    """

    def __init__(self, boundary: bytes, length: int, settings: Settings) -> None:
        self.photos: list[bytes] = []
        self._length = length
        self._settings = settings
        self._size = 0
        self._count = 0
        self._other_fields: list[str] = []
        self._header_name = b""
        self._header_value = b""
        self._field = ""
        self._photo: io.BytesIO | None = None
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise bad_request(f"The multipart form cannot be read: {error}.") from error

    def feed(self, data: bytes) -> None:
        """Take the next chunk.

        Raises:
            GatewayError: It is not a valid form, or over a limit.
        """
        self._size += len(data)
        if self._size > self._settings.max_body_bytes:
            raise photo_too_large(self._settings.max_photo_bytes)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise bad_request(f"The multipart form cannot be read: {error}.") from error

    def end(self) -> None:
        """Check that the form is complete.

        Raises:
            GatewayError: The form is incomplete, or contains no photo.
        """
        if not self._complete:
            raise bad_request("The multipart form ends before its last boundary.")
        if not self._count:
            names = ", ".join(repr(name) for name in self._other_fields[:5])
            only = f"; the form has only {names}" if names else "; the form is empty"
            raise bad_request(f"No photo: send it as the multipart field '{FIELD}'{only}.")

    def _on_part_begin(self) -> None:
        self._field = ""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        if self._field == FIELD:
            self._count += 1
            if self._count > self._settings.max_photos:
                message = f"There are too many photos in one request; at most {self._settings.max_photos} are accepted."
                raise GatewayError(413, "too_large", message)
            # Usually there is only one. For more, this would be too large.
            size = min(self._length, self._settings.max_photo_bytes) if self._count == 1 else 0
            self._photo = _buffer(size)
        else:
            self._other_fields.append(self._field[:50])
            if len(self._other_fields) > MAX_OTHER_FIELDS:
                raise bad_request(f"The form has more than {MAX_OTHER_FIELDS} fields that are not '{FIELD}'.")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._photo is None:
            return
        if self._photo.tell() + end - start > self._settings.max_photo_bytes:
            raise photo_too_large(self._settings.max_photo_bytes)
        self._photo.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        if self._photo is not None:
            self.photos.append(_content(self._photo))
            self._photo = None

    def _on_end(self) -> None:
        self._complete = True


def _buffer(size: int) -> io.BytesIO:
    """An empty buffer with memory for so many bytes: to grow it, a photo would be copied many times."""
    buffer = io.BytesIO()
    if size:
        buffer.seek(size - 1)
        buffer.write(b"\0")
        buffer.seek(0)
    return buffer


def _content(buffer: io.BytesIO) -> bytes:
    """What was written. Not a copy: BytesIO shares its memory."""
    buffer.truncate()
    return buffer.getvalue()
