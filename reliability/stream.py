"""A steady stream of photos with known answers, sent by several workers through the SDK, and what became of each."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from car_analyzer import CarAnalyzer, CarAnalyzerError, PhotoError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from .known import Known


S = TypeVar("S", bound="Stream")


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

    Attributes:
        start: When it was sent, on the monotonic clock, in seconds.
        seconds: Until the answer or the failure.
        error: None for the known answer, or else what came in its place.
        kind: `right`, `wrong` (an answer, but not the known one), `failed` (a CarAnalyzerError) or `untyped`. To refuse
            a photo that must be refused is right.
    """

    start: float
    seconds: float
    kind: str
    error: str | None = None


@dataclass
class Stream:
    """Workers that send photos until they are told to stop. A context manager.

    Attributes:
        url: Where to send them.
        photos: Taken in turn.
        workers: How many photos are in flight.
        timeout: Of each photo, in seconds.
        rate: Photos a second of all workers together; None for as fast as answers come.
        headers: Sent along.
        outcomes: What became of each, in the order in which they ended.
    """

    url: str
    photos: Sequence[Known]
    workers: int = 4
    timeout: float = 30.0
    rate: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._turns = itertools.cycle(self.photos)
        self._lock = threading.Lock()

    def __enter__(self: S) -> S:
        self._analyzer = CarAnalyzer(self.url, timeout=self.timeout, headers=self.headers)
        self._analyzer.wait_until_ready()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._join()
        self._analyzer.close()

    def wait_for(self, count: int, timeout: float = 60.0) -> None:
        """Waits until so many more photos have ended.

        Raises:
            TimeoutError: They did not, in so many seconds.
        """
        goal, deadline = len(self.outcomes) + count, time.monotonic() + timeout
        while len(self.outcomes) < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{goal - len(self.outcomes)} of {count} photos have not ended after {timeout:g} s")
            time.sleep(0.01)

    def counts(self) -> Counter[str]:
        """How many ended in each way."""
        return Counter(outcome.kind for outcome in self.outcomes)

    def errors(self) -> list[str]:
        """The different things that came in place of known answers."""
        return sorted({f"{outcome.kind}: {outcome.error}" for outcome in self.outcomes if outcome.error})

    def _start(self) -> None:
        self._threads = [threading.Thread(target=self._work) for _ in range(self.workers)]
        for thread in self._threads:
            thread.start()

    def _join(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        pause = 0 if self.rate is None else self.workers / self.rate
        while not self._stop.is_set():
            with self._lock:
                known = next(self._turns)
            outcome = self._send(known)
            self.outcomes.append(outcome)
            self._stop.wait(max(0.0, outcome.start + pause - time.monotonic()) if pause else 0)

    def _send(self, known: Known) -> Outcome:
        start = time.monotonic()
        try:
            analysis = self._analyzer.analyze(known.photo)
        except CarAnalyzerError as error:
            if known.logits is None and isinstance(error, PhotoError):
                return Outcome(start, time.monotonic() - start, "right")
            return Outcome(start, time.monotonic() - start, "failed", f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - that there is none is what is tried here
            return Outcome(start, time.monotonic() - start, "untyped", repr(error))
        seconds = time.monotonic() - start
        logits = {name: head.logits for name, head in analysis.heads.items()}
        if known.agrees(logits):
            return Outcome(start, seconds, "right")
        return Outcome(start, seconds, "wrong", f"{known.name}: {logits}, not {known.logits}")
