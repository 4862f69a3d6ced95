"""A body that is a multipart form with photos in it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ._problems import AnswerError, no_photo, photo_too_large

if TYPE_CHECKING:
    from ._settings import Settings

FIELD = "image"
# Callers may send other fields with the photo; they are read and forgotten, but not without end.
OTHER_FIELDS = 100


class Form:
    """Takes a form in pieces; see `Body`.

    Args:
        boundary: What stands between the parts.
        settings: The limits.

    Raises:
        AnswerError: The boundary is no boundary.
    """

    def __init__(self, boundary: bytes, settings: Settings) -> None:
        self.photos: list[bytes] = []
        self._settings = settings
        self._size = 0
        self._count = 0
        self._others: list[str] = []
        self._name = b""
        self._value = b""
        self._field = ""
        self._photo: io.BytesIO | None = None
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_name,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._write,
                    "on_part_end": self._close,
                    "on_end": self._finish,
                },
            )
        except FormParserError as error:
            raise no_photo(f"The multipart form cannot be read: {error}.") from error

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        Raises:
            AnswerError: It is no form, or over a limit.
        """
        self._size += len(data)
        if self._size > self._settings.max_body_bytes:
            raise photo_too_large(self._settings.max_photo_bytes)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise no_photo(f"The multipart form cannot be read: {error}.") from error

    def end(self) -> None:
        """There are no more pieces.

        Raises:
            AnswerError: The form ends too early, or no photo is in it.
        """
        if not self._complete:
            raise no_photo("The multipart form ends before its last boundary.")
        if not self._count:
            names = ", ".join(repr(name) for name in self._others[:5])
            only = f"; the form has only {names}" if names else "; the form is empty"
            raise no_photo(f"No photo: send it as the multipart field '{FIELD}'{only}.")

    def _begin(self) -> None:
        self._field = ""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._name = self._value = b""

    def _open(self) -> None:
        if self._field == FIELD:
            self._count += 1
            if self._count > self._settings.max_photos:
                message = f"There are too many photos in one request; at most {self._settings.max_photos} are accepted."
                raise AnswerError(413, "too_large", message)
            self._photo = io.BytesIO()
        else:
            self._others.append(self._field[:50])
            if len(self._others) > OTHER_FIELDS:
                raise no_photo(f"The form has more than {OTHER_FIELDS} fields that are not '{FIELD}'.")

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._photo is None:
            return
        if self._photo.tell() + end - start > self._settings.max_photo_bytes:
            raise photo_too_large(self._settings.max_photo_bytes)
        self._photo.write(memoryview(data)[start:end])

    def _close(self) -> None:
        if self._photo is not None:
            # Without a copy: the buffer hands out its own bytes.
            self.photos.append(self._photo.getvalue())
            self._photo = None

    def _finish(self) -> None:
        self._complete = True
