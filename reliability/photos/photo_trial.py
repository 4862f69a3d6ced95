"""Sends hostile photos to a running server and counts broken promises."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reliability.harness import Row
from reliability.processes import stubs, usage
from reliability.reference import reference_photos
from reliability.triton_client import PROTOCOLS, Running, TritonClient, UnexpectedAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .corpus import HostilePhoto
    from .oracle import Oracle

# Promised for any single photo, in the process that decodes it, including what this process needs without a photo:
# 50 MB at first, and up to 150 MB when it has decoded others.
MAX_SECONDS = 2.0
MAX_BYTES = 700_000_000
WORKERS = 4
# One in so many mutants is sent in the middle of a batch, too.
BATCH_EACH = 20


@dataclass
class PhotoTrial:
    """Hostile photos to one server. A context manager.

    Attributes:
        server: Running, with the demo models.
        oracle: Tells the expected answers.
        losses: A folder for the photos that were lost.
        progress: Called after each photo.
        lost: Called with each complaint, immediately.
        rows: Of the table.
    """

    server: Running
    oracle: Oracle
    losses: Path
    progress: Callable[[], object] = lambda: None
    lost: Callable[[str], object] = lambda _: None
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = TritonClient(self.server)
        self._counts: Counter[str] = Counter()
        self.complaints: list[str] = []

    def __enter__(self) -> PhotoTrial:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__()

    def answers(self, name: str, photos: Iterable[HostilePhoto]) -> None:
        """Sends photos, several at a time and over each protocol in turn, and checks each answer."""
        self._counts.clear()
        before = len(self.complaints)
        numbered = enumerate(photos)
        with ThreadPoolExecutor(WORKERS) as pool:
            # In portions: a corpus need not fit into memory.
            while portion := list(itertools.islice(numbered, 16 * WORKERS)):
                list(pool.map(self._try, portion))
        counts = self._counts
        answered = f"{counts['correct']:,} answered as PyTorch does"
        note = f"{answered}, {counts['rejected']:,} rejected, over gRPC and HTTP in turn"
        self.rows.append(Row(name, counts.total(), len(self.complaints) - before, note))

    def costs(self, photos: Iterable[HostilePhoto]) -> None:
        """Sends photos one by one, and measures what each takes in the process that decodes it."""
        tried, before, slow, large = 0, len(self.complaints), (0.0, "-"), (0, "-")
        for number, photo in enumerate(photos):
            seconds, memory = self._cost(PROTOCOLS[number % len(PROTOCOLS)], photo)
            slow, large = max(slow, (seconds, photo.name)), max(large, (memory, photo.name))
            if seconds > MAX_SECONDS:
                self._lose(photo, f"took {seconds:.1f} s of CPU time")
            if memory > MAX_BYTES:
                self._lose(photo, f"took {memory / 1e6:.0f} MB")
            tried += 1
            self.progress()
        note = f"at most {slow[0]:.2f} s ({slow[1]}) and {large[0] / 1e6:.0f} MB ({large[1]})"
        self.rows.append(Row("bombs, one by one", tried, len(self.complaints) - before, note))

    def _cost(self, protocol: str, photo: HostilePhoto) -> tuple[float, int]:
        processes = stubs(self.server.pid, "preprocess")
        for process in processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        # CPU time: elapsed time would depend on what else the machine does.
        started = sum(sum(process.cpu_times()[:2]) for process in processes)
        try:
            self._client.infer(protocol, photo.content)
        except UnexpectedAnswerError as error:
            self._lose(photo, str(error))
        if not processes or not all(process.is_running() for process in processes):
            self._lose(photo, "a process that decodes photos is gone")
            return 0.0, 0
        seconds = sum(sum(process.cpu_times()[:2]) for process in processes) - started
        return seconds, max(_peak(process.pid) for process in processes)

    def _try(self, numbered: tuple[int, HostilePhoto]) -> None:
        number, photo = numbered
        protocol = PROTOCOLS[number % len(PROTOCOLS)]
        try:
            answer = self._client.infer(protocol, photo.content)
            complaint = self.oracle.complaint(photo.content, answer if isinstance(answer, str) else answer[0])
            self._counts["rejected" if isinstance(answer, str) else "correct"] += 1
            if complaint is None and isinstance(answer, str) and number % BATCH_EACH == 0:
                complaint = self._in_a_batch(protocol, photo, answer)
        except (UnexpectedAnswerError, TimeoutError) as error:
            complaint = str(error) or type(error).__name__
            self._counts["failed"] += 1
        if complaint is not None:
            self._lose(photo, f"{protocol}: {complaint}")
        self.progress()

    def _in_a_batch(self, protocol: str, photo: HostilePhoto, alone: str) -> str | None:
        good = reference_photos()[0].content
        answer = self._client.infer(protocol, good, photo.content, good)
        own = alone.removeprefix("in ensemble 'car_analyzer', ")
        if not isinstance(answer, str) or f"Photo 2 of 3: {own}" not in answer:
            return f"in a batch it got {answer}, and alone {alone}"
        return None

    def _lose(self, photo: HostilePhoto, complaint: str) -> None:
        self.losses.mkdir(parents=True, exist_ok=True)
        file = self.losses / hashlib.sha256(photo.content).hexdigest()[:16]
        file.write_bytes(photo.content)
        self.complaints.append(f"{photo.kind} '{photo.name}': {complaint}\n    {file}")
        self.lost(self.complaints[-1])


def _peak(pid: int) -> int:
    # Without the memory that it shares with Triton for photos and pixels.
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(facts[name].split()[0]) * 1024 * sign for name, sign in (("VmHWM", 1), ("RssShmem", -1)))


@dataclass(frozen=True)
class Condition:
    """A server's processes, and how much memory they hold."""

    pids: tuple[int, ...]
    memory: int

    @classmethod
    def of(cls, server: Running) -> Condition:
        """Measures an idle server."""
        time.sleep(1)
        pids = (server.pid, *sorted(process.pid for process in stubs(server.pid)))
        return cls(pids, usage(server.pid).memory)

    def compare(self, earlier: Condition) -> list[Row]:
        """Rows for what must not have changed."""
        grown = self.memory / earlier.memory - 1
        return [
            Row("the same processes", 1, int(self.pids != earlier.pids), f"{len(self.pids)}: Triton and its stubs"),
            Row(
                "memory within 10 %",
                1,
                int(grown > 0.1),
                f"{earlier.memory / 1e6:.0f} MB before, {self.memory / 1e6:.0f} MB after ({grown:+.1%})",
            ),
        ]
