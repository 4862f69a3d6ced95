"""The user's folder of photos, and the files in it that cannot be read."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from .errors import SpecError
from .preprocess.photo import FORMATS, Photo, is_turned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from .spec import Limits

T = TypeVar("T")

_NAMED = 3
# Opening a header takes a tenth of a millisecond, on a slow disk some milliseconds.
_MOST_HEADERS = 1000


class PhotoFolder:
    """A folder of photos with its sub-folders.

    Args:
        path: The folder.
        limits: Larger photos are skipped.

    Attributes:
        path: The folder.
        files: All its files, in the order of their paths.
        skipped: Files that could not be read, relative to the folder → the reason, in a sentence.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.files = sorted(file for file in path.rglob("*") if file.is_file())
        self.skipped: dict[str, str] = {}
        self._limits = limits

    def spread(self, count: int) -> list[Path]:
        """All files, starting with `count` evenly spaced ones: folders are often sorted by label."""
        first = {number * len(self.files) // count for number in range(count)}
        order = sorted(range(len(self.files)), key=lambda index: (index not in first, index))
        return [self.files[index] for index in order]

    def count_turned(self) -> tuple[int, int]:
        """How many photos have an EXIF orientation that turns or mirrors them, and of how many.

        At most 1,000 are opened, evenly spaced, and only their headers are read.
        """
        found = []
        for file in self.spread(_MOST_HEADERS)[:_MOST_HEADERS]:
            # A folder of photos also has text files and broken files.
            with contextlib.suppress(Exception), Image.open(file, formats=FORMATS) as image:
                found.append(is_turned(image))
        return sum(found), len(found)

    def read(self, files: Iterable[Path], take: Callable[[Photo, bytes], T]) -> Iterator[T]:
        """Decodes files one by one and yields what `take` returns; skips files for which this fails.

        Args:
            files: Some of the folder's files.
            take: Called with a photo and the bytes of its file.

        Raises:
            SpecError: None of the files can be read.
        """
        any_read = False
        for file in files:
            try:
                content = file.read_bytes()
                taken = take(Photo(content, self._limits.max_bytes, self._limits.max_pixels), content)
            except Exception as error:  # noqa: BLE001 - a folder of photos also has text files and broken files
                self.skipped[str(file.relative_to(self.path))] = str(error) or type(error).__name__
                continue
            any_read = True
            yield taken
        if not any_read:
            reasons = f" ({describe(self.skipped)})" if self.skipped else ""
            raise SpecError(f"The folder of photos {self.path} holds no photo that can be read{reasons}.")


def describe(skipped: Mapping[str, str]) -> str:
    """Lists the first skipped files with their reasons, without a full stop at the end."""
    named = [f"{name}: {reason.rstrip('.')}" for name, reason in list(skipped.items())[:_NAMED]]
    more = [f"and {len(skipped) - _NAMED} more"] if len(skipped) > _NAMED else []
    return "; ".join(named + more)
