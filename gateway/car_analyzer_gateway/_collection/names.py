"""The names of files: they tell all that the quotas need, so that a listing of the folder is enough.

`labelled/condition/damaged/20261127T134819Z-3f9a1c20-wrong-abc.jpg`: when it was answered, a hash of the photo, why it
is kept, and the request's id. Folders are named by head and label, as `car-analyzer check` reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from car_analyzer.folders import label_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .records import Labels

# From the most important one to the least. The first two need feedback.
REASONS = ("wrong", "right", "drift", "unsure", "share")
LABELLED = ("wrong", "right")
FOLDERS = ("labelled", *REASONS)
RECORD = "json"
_NAME = re.compile(rf"(\d{{8}}T\d{{6}}Z)-([0-9a-f]{{8}})-({'|'.join(REASONS)})-(.+)\.(jpg|png|webp|gif|bmp|{RECORD})")
_TIME = "%Y%m%dT%H%M%SZ"
# A request's id may have characters that file names cannot have. Ids never have these in their place.
_ESCAPED = str.maketrans("/:", ",~")
_UNESCAPED = str.maketrans(",~", "/:")


@dataclass(frozen=True)
class Name:
    """The name of a photo's files.

    Attributes:
        time: When it was answered, in whole seconds since 1970.
        token: Eight hexadecimal digits, from the photo's bytes.
        request_id: The request's id.
        reason: Why it is kept.
    """

    time: int
    token: str
    request_id: str
    reason: str

    @property
    def key(self) -> str:
        """The same for a photo of a request whenever it was answered, and whatever it is kept for."""
        return f"{self.token}-{self.request_id}"

    def file(self, ending: str) -> str:
        """The name of the photo's file, or of its record."""
        time = datetime.fromtimestamp(self.time, timezone.utc).strftime(_TIME)
        request_id = re.sub(r"[^A-Za-z0-9._+=,~-]", "_", self.request_id.translate(_ESCAPED))
        return f"{time}-{self.token}-{self.reason}-{request_id[:150]}.{ending}"

    def folder(self, labels: Labels | None) -> str:
        """The folder for the photo.

        Args:
            labels: The labels that people gave; None without feedback.
        """
        if labels is not None:
            return "/".join(["labelled", *_label_folders(labels)])
        return f"{self.reason}/{datetime.fromtimestamp(self.time, timezone.utc):%Y-%m-%d}"


def parse(file: str) -> tuple[Name, str] | None:
    """A file's name and ending; None for files that are not the collection's."""
    found = _NAME.fullmatch(file)
    if found is None:
        return None
    try:
        time = datetime.strptime(found[1], _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return Name(int(time.timestamp()), found[2], found[4].translate(_UNESCAPED), found[3]), found[5]


def _label_folders(labels: Mapping[str, object]) -> list[str]:
    folders: list[str] = []
    for head, label in labels.items():
        names = [label] if isinstance(label, str) else list(label) if isinstance(label, (list, tuple)) else []
        folders += [label_folder(head), ", ".join(label_folder(name) for name in names) or "none"]
    return folders
