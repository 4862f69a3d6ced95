"""The pictures of `car-analyzer analyze --explain`: for each head, the photo with its map."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..folders import STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._results import Analysis


class Overlays:
    """A folder with one picture for each photo and head: `car.jpg.condition.png`.

    Args:
        folder: Created if it does not exist. Pictures of an earlier run are replaced.
        photos: The names of all photos.

    Raises:
        ConfigurationError: The folder cannot be written to, or two photos would have the same pictures.
    """

    def __init__(self, folder: str, photos: Iterable[str]) -> None:
        self._folder = folder
        known: dict[str, str] = {}
        for photo in photos:
            other = known.setdefault(_file_name(photo), photo)
            if other != photo:
                raise ConfigurationError(
                    f"{other} and {photo} have the same name, so their pictures in {folder} would have it, too; "
                    "analyse them one after the other, with a folder each"
                )
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigurationError(f"cannot write into the folder {folder}: {error.strerror}") from error

    def path(self, photo: str, head: str) -> str:
        """The file of a photo's picture for a head. The server's names of heads cannot lead out of the folder."""
        return os.path.join(self._folder, f"{_file_name(photo)}.{re.sub(r'[^A-Za-z0-9_-]', '_', head)}.png")  # noqa: PTH118

    def write(self, photo: str, content: bytes, analysis: Analysis) -> None:
        """Draw the pictures of one photo.

        Raises:
            OSError: A file cannot be written.
            PhotoError: The photo cannot be decoded on this side.
        """
        for name, head in analysis.heads.items():
            if head.explanation is not None:
                Path(self.path(photo, name)).write_bytes(head.explanation.on_photo(content))


def _file_name(photo: str) -> str:
    return "stdin" if photo == STANDARD_INPUT else os.path.basename(photo)  # noqa: PTH119 - Path changes names
