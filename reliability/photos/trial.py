"""Sends hostile photos to a running server and counts what was promised and not kept."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reliability.known import known_photos
from reliability.processes import stubs, usage
from reliability.table import Row

from .ask import PROTOCOLS, Asker, BrokenError, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .corpus import Hostile
    from .judge import Judge

# Promised of any single photo, in the process that decodes it.
MAX_SECONDS = 2.0
MAX_BYTES = 600_000_000
WORKERS = 4
# One in so many mutants is sent in the middle of a batch, too.
BATCH_EACH = 20


@dataclass
class Trial:
    """A trial on one server. A context manager.

    Attributes:
        server: Running, with the demo models.
        judge: Says what must become of a photo.
        losses: A folder for the photos with which something went wrong.
        progress: Called after each photo.
        lost: Called with each complaint, at once.
        rows: What was tried.
    """

    server: Running
    judge: Judge
    losses: Path
    progress: Callable[[], object] = lambda: None
    lost: Callable[[str], object] = lambda _: None
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._asker = Asker(self.server)
        self._counts: Counter[str] = Counter()
        self.complaints: list[str] = []

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self._asker.__exit__()

    def answers(self, name: str, photos: Iterable[Hostile]) -> None:
        """Sends photos, several at a time and by each protocol in turn, and judges each answer."""
        self._counts.clear()
        before = len(self.complaints)
        with ThreadPoolExecutor(WORKERS) as pool:
            # In portions: a corpus need not fit into memory.
            portion: list[tuple[int, Hostile]] = []
            for numbered in enumerate(photos):
                portion.append(numbered)
                if len(portion) == 16 * WORKERS:
                    list(pool.map(self._try, portion))
                    portion.clear()
            list(pool.map(self._try, portion))
        counts = self._counts
        note = f"{counts['right']:,} answered as PyTorch does, {counts['refused']:,} refused, by gRPC and HTTP in turn"
        self.rows.append(Row(name, counts.total(), len(self.complaints) - before, note))

    def costs(self, photos: Iterable[Hostile]) -> None:
        """Sends photos one by one, and watches what each takes in the process that decodes it."""
        tried, before, slow, large = 0, len(self.complaints), (0.0, "-"), (0, "-")
        for number, photo in enumerate(photos):
            seconds, memory = self._cost(PROTOCOLS[number % len(PROTOCOLS)], photo)
            slow, large = max(slow, (seconds, photo.name)), max(large, (memory, photo.name))
            if seconds > MAX_SECONDS:
                self._lose(photo, f"took {seconds:.1f} s of a processor")
            if memory > MAX_BYTES:
                self._lose(photo, f"took {memory / 1e6:.0f} MB")
            tried += 1
            self.progress()
        note = f"at most {slow[0]:.2f} s ({slow[1]}) and {large[0] / 1e6:.0f} MB ({large[1]})"
        self.rows.append(Row("bombs, one by one", tried, len(self.complaints) - before, note))

    def _cost(self, protocol: str, photo: Hostile) -> tuple[float, int]:
        processes = [process for process in stubs(self.server.pid) if "/preprocess/" in " ".join(process.cmdline())]
        for process in processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        # Seconds of a processor: on the clock, they would depend on what else the machine does.
        started = sum(sum(process.cpu_times()[:2]) for process in processes)
        try:
            self._asker.ask(protocol, photo.content)
        except BrokenError as error:
            self._lose(photo, str(error))
        if not processes or not all(process.is_running() for process in processes):
            self._lose(photo, "a process that decodes photos is gone")
            return 0.0, 0
        seconds = sum(sum(process.cpu_times()[:2]) for process in processes) - started
        return seconds, max(_peak(process.pid) for process in processes)

    def _try(self, numbered: tuple[int, Hostile]) -> None:
        number, photo = numbered
        protocol = PROTOCOLS[number % len(PROTOCOLS)]
        try:
            answer = self._asker.ask(protocol, photo.content)
            complaint = self.judge.complaint(photo.content, answer if isinstance(answer, str) else answer[0])
            self._counts["refused" if isinstance(answer, str) else "right"] += 1
            if complaint is None and isinstance(answer, str) and number % BATCH_EACH == 0:
                complaint = self._in_a_batch(protocol, photo, answer)
        except (BrokenError, TimeoutError) as error:
            complaint = str(error) or type(error).__name__
            self._counts["broken"] += 1
        if complaint is not None:
            self._lose(photo, f"{protocol}: {complaint}")
        self.progress()

    def _in_a_batch(self, protocol: str, photo: Hostile, alone: str) -> str | None:
        good = known_photos()[0].photo
        answer = self._asker.ask(protocol, good, photo.content, good)
        own = alone.removeprefix("in ensemble 'car_analyzer', ")
        if not isinstance(answer, str) or f"Photo 2 of 3: {own}" not in answer:
            return f"in a batch it got {answer}, and alone {alone}"
        return None

    def _lose(self, photo: Hostile, complaint: str) -> None:
        self.losses.mkdir(parents=True, exist_ok=True)
        file = self.losses / hashlib.sha256(photo.content).hexdigest()[:16]
        file.write_bytes(photo.content)
        self.complaints.append(f"{photo.kind} '{photo.name}': {complaint}\n    {file}")
        self.lost(self.complaints[-1])


def _peak(pid: int) -> int:
    # Without the memory that it shares with Triton, in which photos come and pixels go.
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(facts[name].split()[0]) * 1024 * sign for name, sign in (("VmHWM", 1), ("RssShmem", -1)))


@dataclass(frozen=True)
class Condition:
    """What a server is like: which processes, and how much memory."""

    pids: tuple[int, ...]
    memory: int

    @classmethod
    def of(cls, server: Running) -> Condition:
        """Looks at a server that has nothing to do."""
        time.sleep(1)
        pids = (server.pid, *sorted(process.pid for process in stubs(server.pid)))
        return cls(pids, usage(server.pid).memory)

    def compare(self, earlier: Condition) -> list[Row]:
        """What has changed, and may not."""
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
