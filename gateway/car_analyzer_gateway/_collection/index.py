"""Which photos are kept, and which of them give way to another one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .names import REASONS, RECORD, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .names import Name


@dataclass(frozen=True)
class Entry:
    """A photo in the folder.

    Attributes:
        name: The name of its files.
        files: The paths of its record, if there is one, and of the photo, in the order to delete them. A photo with two
            names has two of each.
        size: Of all its files, in bytes.
    """

    name: Name
    files: tuple[str, ...]
    size: int


class Index:
    """The photos in the folder, within two quotas.

    Args:
        max_photos: The most photos.
        max_bytes: The most bytes of photos and their records.
        entries: The photos, from the oldest to the newest.
    """

    def __init__(self, max_photos: int, max_bytes: int, entries: Iterable[Entry] = ()) -> None:
        self.bytes = 0
        self._max_photos = max_photos
        self._max_bytes = max_bytes
        self._entries: dict[str, Entry] = {}
        self._by_reason: dict[str, dict[str, Entry]] = {reason: {} for reason in REASONS}
        # Request id to key; if several photos have the same id, the newest.
        self._by_request: dict[str, str] = {}
        for entry in entries:
            self.add(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, key: str) -> Entry | None:
        """The photo with a key."""
        return self._entries.get(key)

    def of_request(self, request_id: str) -> Entry | None:
        """The photo of a request. Safe in any thread."""
        key = self._by_request.get(request_id)
        return None if key is None else self._entries.get(key)

    def add(self, entry: Entry) -> None:
        """Add a photo, in place of one with the same key."""
        if (old := self._entries.get(entry.name.key)) is not None:
            self.remove(old)
        self._entries[entry.name.key] = entry
        self._by_reason[entry.name.reason][entry.name.key] = entry
        self._by_request[entry.name.request_id] = entry.name.key
        self.bytes += entry.size

    def remove(self, entry: Entry) -> None:
        """Remove a photo; does nothing if it is not there, or was replaced."""
        if self._entries.get(entry.name.key) != entry:
            return
        del self._entries[entry.name.key]
        del self._by_reason[entry.name.reason][entry.name.key]
        if self._by_request.get(entry.name.request_id) == entry.name.key:
            del self._by_request[entry.name.request_id]
        self.bytes -= entry.size

    def room(self, size: int, reason: str, replaced: Entry | None) -> list[Entry] | None:
        """What has to be deleted before a photo is written: first the oldest of the least important ones.

        Args:
            size: Of the photo and its record, in bytes.
            reason: Why it is kept. Only less important photos give way to it.
            replaced: The same photo, kept for another reason until now.

        Returns:
            None if there is no room.
        """
        freed: list[Entry] = []
        photos, used = len(self), self.bytes
        candidates = itertools.chain([replaced] if replaced else [], self._below(reason, replaced))
        while photos + 1 > self._max_photos or used + size > self._max_bytes:
            entry = next(candidates, None)
            if entry is None:
                return None
            freed.append(entry)
            photos, used = photos - 1, used - entry.size
        return freed

    def _below(self, reason: str, replaced: Entry | None) -> Iterable[Entry]:
        for less in reversed(REASONS[REASONS.index(reason) + 1 :]):
            yield from (entry for entry in self._by_reason[less].values() if entry != replaced)


def read_listing(sizes: Mapping[str, int]) -> tuple[list[Entry], list[str]]:
    """The photos in a listing of the folder, from the oldest to the newest.

    Args:
        sizes: Path to size. Files that are not the collection's are ignored.

    Returns:
        The photos, and the records without a photo: a gateway ended while it deleted them.
    """
    # By key: if two gateways moved the same photo, or one ended meanwhile, it has two names.
    found: dict[str, tuple[Name, list[str]]] = {}
    for path in sorted(sizes):
        if (parsed := parse(path.rpartition("/")[2])) is not None:
            name, ending = parsed
            files = found.setdefault(name.key, (name, []))[1]
            # Records come first, since they are deleted first.
            files.insert(0 if ending == RECORD else len(files), path)
    entries: list[Entry] = []
    orphans: list[str] = []
    for name, files in sorted(found.values(), key=lambda photo: photo[0].time):
        if files[-1].endswith(f".{RECORD}"):
            orphans += files
        else:
            entries.append(Entry(name, tuple(files), sum(sizes[path] for path in files)))
    return entries, orphans
