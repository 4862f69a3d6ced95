"""A collection whose jobs are run by the test, and what it is given."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

from PIL import Image
from prometheus_client import CollectorRegistry

from car_analyzer import Analysis, Head
from car_analyzer_gateway._collection import Collection
from car_analyzer_gateway._collection.names import parse
from car_analyzer_gateway._observers import AnsweredPhoto
from car_analyzer_gateway._settings import Settings

from .test_strip import drawn

if TYPE_CHECKING:
    from collections.abc import Callable


LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}
NOON = 1_795_780_800.0  # 2026-11-27 12:00 UTC


def analysis(condition: str = "intact", cleanliness: str = "clean") -> Analysis:
    heads = {"cleanliness": (cleanliness, ("clean", "dirty")), "condition": (condition, ("intact", "damaged"))}
    return Analysis(
        {name: Head(label, 0.9, dict.fromkeys(labels, 0.5), (0.0, 0.0)) for name, (label, labels) in heads.items()},
        12.3,
        "7",
        "0123456789abcdef",
    )


def small_photo(color: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color % 256, color // 256 % 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class Trial:
    """A collection whose jobs are run by the test, with a clock that only the test advances."""

    def __init__(self, folder: Any, *, chance: Callable[[], float] = lambda: 1.0, **settings: Any) -> None:
        self.now = NOON
        self.folder = folder
        self.registry = CollectorRegistry()
        self.collection = Collection(
            Settings(collect=str(folder), **{f"collect_{name}": value for name, value in settings.items()}),
            self.registry,
            clock=lambda: self.now,
            chance=chance,
        )
        self.keeper = self.collection._keeper
        self.keeper.start()

    def work(self) -> None:
        """Do the jobs that wait."""
        writer = self.collection._writer
        while writer._jobs:
            job, size = writer._jobs.popleft()
            writer._bytes -= size
            job()

    def see(self, request_id: str, photo: bytes | None = None, condition: str = "intact") -> AnsweredPhoto:
        photo = drawn("JPEG", 6) if photo is None else photo
        answered = AnsweredPhoto(request_id, photo, analysis(condition), self.now)
        self.collection.see(answered)
        self.work()
        return answered

    def label(self, request_id: str, **labels: Any) -> None:
        photo = self.collection._recent.get(request_id) or self.keeper.read(request_id)
        assert photo is not None
        self.collection.label(photo, labels)
        self.work()

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"car_analyzer_{name}", labels) or 0.0

    def photos(self) -> list[str]:
        """The photos in the folder; all numbers have to agree."""
        sizes = self.keeper._storage.sizes()
        found = sorted(path for path in sizes if not path.endswith(".json"))
        assert len(found) == len(self.keeper.index) == self.count("collection_photos")
        assert sum(sizes.values()) == self.keeper.index.bytes == self.count("collection_bytes")
        return found

    def reasons(self) -> Counter[str]:
        parsed = [parse(path.rpartition("/")[2]) for path in self.photos()]
        return Counter(each[0].reason for each in parsed if each)
