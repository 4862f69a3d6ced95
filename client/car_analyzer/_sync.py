"""The blocking client: the asyncio one behind a door that any thread may use."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ._client import DEFAULT_RETRY, AsyncCarAnalyzer, check_many
from ._portal import Portal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
    from types import TracebackType

    from ._photo import Photo
    from ._results import Analysis, Failure, Health
    from .config import TLS, Retry

T = TypeVar("T")


class CarAnalyzer:
    """Asks a Triton about photos of cars. Any number of threads may share one client.

        with CarAnalyzer("grpc://localhost:8001") as analyzer:
            analysis = analyzer.analyze("car.jpg")
            print(analysis.cleanliness.label, analysis.cleanliness.confidence)

    It works in a forked process too, where it opens connections of its own.

    Args:
        url: `grpc://` (also without a scheme), `grpcs://`, `http://` or `https://`; by default `$CAR_ANALYZER_URL`
            or `grpc://localhost:8001`.
        timeout: What a call may take by default, in seconds: reading the photo, every attempt and every pause.
        retry: How failed attempts are repeated.
        model: The ensemble's name.
        tls: Certificates for `grpcs://` and `https://`, where the usual ones do not do.
        headers: Sent with every request, such as `{"Authorization": "Bearer …"}`.

    Raises:
        ConfigurationError: One of these is wrong. (Nothing is connected yet.)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 30.0,
        retry: Retry = DEFAULT_RETRY,
        model: str = "car_analyzer",
        tls: TLS | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        first = AsyncCarAnalyzer(url, timeout=timeout, retry=retry, model=model, tls=tls, headers=headers)
        self._url = first.url
        self._make = partial(
            AsyncCarAnalyzer, first.url, timeout=timeout, retry=retry, model=model, tls=tls, headers=headers
        )
        self._lock = threading.Lock()
        self._portal: Portal | None = None
        self._closed = False
        _living.add(self)

    @property
    def url(self) -> str:
        """The URL that is asked, complete with scheme and port."""
        return self._url

    def analyze(self, photo: Photo, *, timeout: float | None = None, request_id: str | None = None) -> Analysis:
        """Have one photo analysed.

        Args:
            photo: A path, the bytes of an image file, an open binary file, a Pillow image, or an RGB array of
                uint8 with shape [height, width, 3].
            timeout: What the call may take in seconds; None for the client's own.
            request_id: Goes with the request into Triton's logs and traces.

        Raises:
            PhotoError: The photo cannot be read, or is none.
            UnreachableError: Nobody answers at the URL.
            DeadlineExceededError: There was no answer in time.
            ModelNotReadyError: The model is not loaded.
            ServerError: The server failed.
            ConfigurationError: The timeout is wrong, or the model says things of itself this client cannot read.
        """
        return self._run(lambda client: client.analyze(photo, timeout=timeout, request_id=request_id))

    def analyze_many(
        self, photos: Iterable[Photo], *, concurrency: int = 8, timeout: float | None = None
    ) -> Generator[Analysis | Failure, None, None]:
        """Have many photos analysed, several at a time.

        Photos are taken from the iterable as results are taken from here, so it may be endless, and no more than
        `concurrency` are held. Leaving early drops what is under way.

        Args:
            photos: Whatever `analyze` takes, any number of them.
            concurrency: How many are analysed at once.
            timeout: What each may take in seconds; None for the client's own.

        Returns:
            For each photo, in order, its `Analysis`, or a `Failure` that says why there is none.

        Raises:
            ConfigurationError: `concurrency` or `timeout` is wrong.
            TypeError: `photos` is a single photo.
        """
        check_many(photos, concurrency, timeout)
        return self._stream(photos, concurrency, timeout)

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait for a server that is starting.

        Args:
            timeout: How long to wait at most, in seconds.

        Raises:
            UnreachableError: Nobody answered to the end.
            DeadlineExceededError: The server answered, but did not become ready.
        """
        self._run(lambda client: client.wait_until_ready(timeout))

    def health(self, timeout: float = 5.0) -> Health:
        """Look whether photos can be analysed now. A service that is down is an answer here, not an error.

        Args:
            timeout: How long to wait for it at most, in seconds.
        """
        return self._run(lambda client: client.health(timeout))

    def close(self) -> None:
        """Cancel what runs and let go of the connections. A closed client stays closed."""
        with self._lock:
            self._closed = True
            portal, self._portal = self._portal, None
        if portal is not None:
            portal.stop()
            portal.join()

    def __enter__(self) -> CarAnalyzer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _stream(
        self, photos: Iterable[Photo], concurrency: int, timeout: float | None
    ) -> Generator[Analysis | Failure, None, None]:
        window: deque[Future[Analysis | Failure]] = deque()
        try:
            # The iterable is walked here, in the caller's thread, where it may expect to be.
            for photo in photos:
                window.append(self._submit(_trial(photo, timeout)))
                if len(window) >= concurrency:
                    yield _wait(window.popleft())
            while window:
                yield _wait(window.popleft())
        finally:
            for future in window:
                future.cancel()

    def _run(self, work: Callable[[AsyncCarAnalyzer], Coroutine[Any, Any, T]]) -> T:
        return _wait(self._submit(work))

    def _submit(self, work: Callable[[AsyncCarAnalyzer], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._lock:
            if self._closed:
                raise RuntimeError("this client is closed")
            portal = self._portal
            if portal is None:
                portal = Portal(self._make())
                self._portal = portal
                # Only asks the thread to end: waiting for it is nothing to do inside a garbage collection.
                self._finalizer = weakref.finalize(self, portal.stop)
        return portal.submit(work(portal.client))

    def _forget(self) -> None:
        """Start afresh in a forked child: the thread stayed behind, and the connections are the parent's."""
        if self._portal is not None:
            _left_behind.append(self._portal)
            self._finalizer.detach()
        self._portal = None
        self._lock = threading.Lock()


def _trial(
    photo: Photo, timeout: float | None
) -> Callable[[AsyncCarAnalyzer], Coroutine[Any, Any, Analysis | Failure]]:
    return lambda client: client.try_analyze(photo, timeout)


def _wait(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError:
        raise RuntimeError("this client was closed during the call") from None
    except BaseException:
        future.cancel()  # Ctrl-C, for one; what has ended cannot be cancelled any more
        raise


_living: weakref.WeakSet[CarAnalyzer] = weakref.WeakSet()
# Kept for ever on purpose: closing a parent's event loop here would change the parent's own.
_left_behind: list[Portal] = []


def _forget_all() -> None:
    for analyzer in list(_living):
        analyzer._forget()


def _close_all() -> None:
    for analyzer in list(_living):
        analyzer.close()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)
