"""A closed-loop load generator: workers send photos with expected answers and record the outcome of each."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from anyio.from_thread import start_blocking_portal

from car_analyzer import AsyncCarAnalyzer, CarAnalyzer, CarAnalyzerError, PhotoError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .reference import ReferencePhoto

Analyze = Callable[[bytes], Any]
"""Sends a photo: its analysis, or the gateway's JSON. Raises `CarAnalyzerError`."""
Transport = Callable[[str, float], AbstractContextManager[Analyze]]
"""Connects to a URL, with a timeout in seconds for each photo."""

L = TypeVar("L", bound="Load")


@dataclass(frozen=True)
class Outcome:
    """The outcome of one photo.

    Attributes:
        start: When it was sent, on the monotonic clock, in seconds.
        seconds: Until the answer or the failure.
        kind: `correct`, `wrong` (another answer than expected), `failed` (a CarAnalyzerError) or `untyped` (any other
            exception). To reject a photo that must be rejected is correct.
        error: What came in place of the expected answer, if it did not.
    """

    start: float
    seconds: float
    kind: str
    error: str | None = None


@contextlib.contextmanager
def sdk(url: str, timeout: float) -> Iterator[Analyze]:
    """The SDK, once its server is ready."""
    with CarAnalyzer(url, timeout=timeout) as analyzer:
        analyzer.wait_until_ready()
        yield analyzer.analyze


@contextlib.contextmanager
def async_sdk(url: str, timeout: float) -> Iterator[Analyze]:
    """The SDK for asyncio: one event loop, on which all workers' photos run as tasks."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(AsyncCarAnalyzer(url, timeout=timeout)) as analyzer,
    ):
        portal.call(analyzer.wait_until_ready)
        yield functools.partial(portal.call, analyzer.analyze)


@contextlib.contextmanager
def gateway(url: str, timeout: float) -> Iterator[Analyze]:
    """Uploads to a gateway, as a web app sends them."""
    with httpx.Client(base_url=url, timeout=timeout) as client:

        def analyze(photo: bytes) -> Any:
            try:
                answer = client.post("/analyze", files={"image": photo})
            except httpx.HTTPError as error:
                raise CarAnalyzerError(repr(error)) from error
            if answer.status_code == 200:
                return answer.json()
            rejected = answer.status_code in (400, 413)
            raise (PhotoError if rejected else CarAnalyzerError)(f"{answer.status_code} {answer.text}")

        yield analyze


@dataclass
class Load:
    """Workers that send photos until the context ends. A context manager.

    Attributes:
        url: Where to send them.
        photos: Sent in turn.
        workers: How many photos are in flight.
        timeout: For each photo, in seconds.
        rate: Photos a second of all workers together; None for as fast as answers come.
        transport: How they are sent.
        outcomes: In the order in which they came.
    """

    url: str
    photos: Sequence[ReferencePhoto]
    workers: int = 4
    timeout: float = 30.0
    rate: float | None = None
    transport: Transport = sdk
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._next = itertools.cycle(self.photos)
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self: L) -> L:
        self._analyze = self._stack.enter_context(self.transport(self.url, self.timeout))
        self._threads = [threading.Thread(target=self._work) for _ in range(self.workers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()

    def wait_for(self, count: int, timeout: float = 60.0) -> None:
        """Waits for so many more outcomes.

        Raises:
            TimeoutError: They did not come in so many seconds.
        """
        goal, deadline = len(self.outcomes) + count, time.monotonic() + timeout
        while len(self.outcomes) < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{goal - len(self.outcomes)} of {count} photos have not ended after {timeout:g} s")
            time.sleep(0.01)

    def counts(self) -> Counter[str]:
        """How many outcomes of each kind there are."""
        return Counter(outcome.kind for outcome in list(self.outcomes))

    @property
    def lost(self) -> int:
        """How many outcomes are not correct."""
        counts = self.counts()
        return counts.total() - counts["correct"]

    @property
    def slowest(self) -> float:
        """The longest time that a photo took, in seconds."""
        return max((outcome.seconds for outcome in self.outcomes), default=0.0)

    def errors(self) -> list[str]:
        """The different errors."""
        return sorted({f"{outcome.kind}: {outcome.error}" for outcome in self.outcomes if outcome.error})

    def example(self) -> str:
        """One of the errors, for a row's note; empty if there is none."""
        errors = self.errors()
        return f"; {len(errors)} kinds of errors, such as {errors[0][:200]}" if errors else ""

    def _work(self) -> None:
        pause = 0 if self.rate is None else self.workers / self.rate
        while not self._stop.is_set():
            with self._lock:
                photo = next(self._next)
            start = time.monotonic()
            kind, error = self._send(photo)
            self.outcomes.append(Outcome(start, time.monotonic() - start, kind, error))
            self._stop.wait(max(0.0, start + pause - time.monotonic()) if pause else 0)

    def _send(self, photo: ReferencePhoto) -> tuple[str, str | None]:
        try:
            answer = self._analyze(photo.content)
        except CarAnalyzerError as error:
            if photo.logits is None and isinstance(error, PhotoError):
                return "correct", None
            return "failed", f"{photo.name}: {type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - that there is none is what is tried here
            return "untyped", repr(error)
        return ("correct", None) if self._is_correct(photo, answer) else ("wrong", f"{photo.name}: {answer}")

    def _is_correct(self, photo: ReferencePhoto, answer: Any) -> bool:
        if isinstance(answer, dict):
            return photo.matches_json(answer)
        return photo.matches({name: head.logits for name, head in answer.heads.items()})
