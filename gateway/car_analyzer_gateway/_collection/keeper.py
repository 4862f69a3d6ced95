"""Decides what is kept, and writes and deletes it.

All of it runs in one thread, where a call may take as long as the storage does.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from .._logs import logger
from .index import Entry, Index, read_listing
from .metadata import UnreadableError
from .names import REASONS, RECORD
from .recent import Photo
from .records import Record
from .strip import strip

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from .metrics import CollectionMetrics
    from .records import Labels
    from .storage import Storage

# How often the folder is listed: other gateways may write to it. Then, old photos are deleted.
LIST_EVERY_S = 600.0
# After a failure, how long until the folder is listed again.
RETRY_S = 30.0
# The same trouble is logged once in that time.
LOG_EVERY_S = 600.0
DAY_S = 86_400


class Keeper:
    """Keeps photos within the quotas.

    Args:
        storage: Where they are kept.
        max_photos: The most photos.
        max_bytes: The most bytes.
        days: After so many days, photos are deleted.
        metrics: Counts what is kept and dropped.
        clock: The time, in seconds since 1970.
    """

    def __init__(
        self,
        storage: Storage,
        max_photos: int,
        max_bytes: int,
        days: float,
        metrics: CollectionMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.index = Index(max_photos, max_bytes)
        self._storage = storage
        self._quotas = (max_photos, max_bytes)
        self._age = days * DAY_S
        self._metrics = metrics
        self._clock = clock
        self._listed = False
        self._list_at = 0.0
        self._logged: dict[str, float] = {}
        metrics.watch(self)

    def start(self) -> None:
        """List the folder for the first time, and clean up after a gateway that was killed."""
        with self._trouble("list"):
            self._storage.delete_temporary()
        self.refresh()

    def refresh(self) -> None:
        """If it is time, list the folder, and delete photos that are too old."""
        if self._clock() < self._list_at:
            return
        self._list_at = self._clock() + RETRY_S
        with self._trouble("list"):
            entries, orphans = read_listing(self._storage.sizes())
            self.index = Index(*self._quotas, entries)
            self._listed = True
            self._list_at = self._clock() + LIST_EVERY_S
            for path in orphans:
                self._storage.delete(path)
            for entry in entries:
                if entry.name.time < self._clock() - self._age:
                    self._delete(entry)

    def keep(self, photo: Photo, reason: str, labels: Labels | None = None) -> None:
        """Keep a photo, or drop it: if there is no room, its metadata cannot be removed, or the storage fails.

        Args:
            photo: The photo. Without its bytes: one that is kept already.
            reason: Why it is kept.
            labels: The labels that people gave; None without feedback.
        """
        self.refresh()
        name = photo.name(reason)
        kept = self.index.get(name.key)
        if kept and labels is None and REASONS.index(kept.name.reason) <= REASONS.index(reason):
            return
        if not self._listed:
            self.drop("error")  # the quotas are not known
            return
        if self.index.room(1, reason, kept) is None:
            self.drop("quota")  # before it costs anything: that is usual when the collection is full
            return
        with self._trouble("write", drops=True):
            if photo.data is not None:
                data, ending = strip(photo.data)
            elif kept is not None:
                path = kept.files[-1]
                data, ending = self._storage.read(path), path.rpartition(".")[2]
            else:
                self.drop("quota")  # another photo has replaced it in the meantime
                return
            record = photo.record.to_json(reason, labels)
            folder = name.folder(labels)
            files = {f"{folder}/{name.file(RECORD)}": record, f"{folder}/{name.file(ending)}": data}
            if kept and files.keys() == set(kept.files):
                return  # the same feedback again
            replaced = self.index.room(len(data) + len(record), reason, kept)
            if replaced is None:
                self.drop("quota")
                return
            for entry in replaced:
                self._delete(entry)
            self._write(files)
            if kept is not None and kept not in replaced:
                self._delete(kept, but=files)
            self.index.add(Entry(name, tuple(files), len(data) + len(record)))
            self._metrics.collected.labels(reason).inc()

    def read(self, request_id: str) -> Photo | None:
        """A photo that is kept, without its bytes; None if there is none."""
        with self._trouble("read"):
            try:
                return self._read(request_id)
            except FileNotFoundError:
                # Another gateway has moved it.
                self._list_at = 0.0
                self.refresh()
                return self._read(request_id)
        return None

    def drop(self, cause: str) -> None:
        """Count a photo that is not kept."""
        self._metrics.dropped.labels(cause).inc()

    def warn(self, trouble: str, reason: str) -> None:
        """Log what is wrong, unless that was logged a short while ago."""
        if self._clock() - self._logged.get(trouble, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged[trouble] = self._clock()
            logger.warning("photos are not collected", extra={"fields": {"trouble": trouble, "reason": reason[:500]}})

    def _read(self, request_id: str) -> Photo | None:
        entry = self.index.of_request(request_id)
        if entry is None or not entry.files[0].endswith(f".{RECORD}"):
            return None
        record = Record.from_json(self._storage.read(entry.files[0]))
        return Photo(entry.name.time, None, record, entry.name.token)

    def _write(self, files: dict[str, bytes]) -> None:
        try:
            # The photo first: after a crash between the two, it lacks its record, but is still a photo.
            for path, data in reversed(files.items()):
                self._storage.write(path, data)
        except Exception:
            try:
                for path in files:
                    self._storage.delete(path)
            except Exception:  # noqa: BLE001 - the first error is the one to report
                # What is there now, and counts, is only known after the next listing.
                self._listed = False
                self._list_at = self._clock() + RETRY_S
            raise

    def _delete(self, entry: Entry, but: Container[str] = ()) -> None:
        for path in entry.files:
            if path not in but:
                self._storage.delete(path)
        self.index.remove(entry)

    @contextlib.contextmanager
    def _trouble(self, action: str, *, drops: bool = False) -> Iterator[None]:
        try:
            yield
        except UnreadableError:
            self.drop("format")
        except Exception as error:  # noqa: BLE001 - storage libraries have errors of their own
            if drops:
                self.drop("error")
            self.warn(f"{action}: {type(error).__name__}", str(error))
