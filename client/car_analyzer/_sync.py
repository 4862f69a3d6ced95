"""The blocking client: runs the asyncio client on a thread of its own."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ._client import DEFAULT_RETRY, AsyncCarAnalyzer, check_analyze_many
from ._loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
    from types import TracebackType

    from ._photo import Photo
    from ._results import Analysis, Failure, Health
    from .config import TLS, Retry

T = TypeVar("T")


class CarAnalyzer:
    """Analyses photos of cars with a Triton or a gateway. Any number of threads may share one client.

        with CarAnalyzer("grpc://localhost:8001") as analyzer:
            analysis = analyzer.analyze("car.jpg")
            print(analysis.cleanliness.label, analysis.cleanliness.confidence)

    It also works in a forked process, where it opens new connections.

    Args:
        url: `grpc://` (also without a scheme), `grpcs://`, `http://` or `https://`; by default `$CAR_ANALYZER_URL`
            or `grpc://localhost:8001`. Over HTTP, the first answer shows whether the server is a Triton or this
            project's gateway, as in `http://gateway:5000`; the results are the same.
        timeout: The default time limit of a call in seconds: reading the photo, all attempts and pauses between them.
        retry: How failed attempts are repeated.
        model: The ensemble's name; a gateway has a setting of its own for it.
        tls: Certificates for `grpcs://` and `https://`, if the system's are not sufficient.
        headers: Sent with every request, such as `{"Authorization": "Bearer …"}`.

    Raises:
        ConfigurationError: One of these is invalid. (There is no connection yet.)
    """

    __module__ = "car_analyzer"  # for help() and messages

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
        self._thread: LoopThread | None = None
        self._closed = False
        _clients.add(self)

    @property
    def url(self) -> str:
        """The server's URL, complete with scheme and port."""
        return self._url

    def analyze(
        self, photo: Photo, *, timeout: float | None = None, request_id: str | None = None, explain: bool = False
    ) -> Analysis:
        """Analyse one photo.

        Args:
            photo: A path, a URL, the bytes of an image file, an open binary file, a Pillow image, or an RGB array of
                uint8 with shape [height, width, 3]. URLs (`https://`, `s3://`, …) need the extra `bulk`. This program
                reads them, with its own network access and credentials: check URLs that come from strangers first.
            timeout: The time limit in seconds; None for the client's own.
            request_id: Appears in Triton's logs and traces.
            explain: Also find out where in the photo each answer comes from: `analysis.condition.explanation`. A head
                without class activation maps is explained with 64 covered copies of the photo, which its network
                computes, too.

        Raises:
            PhotoError: The photo cannot be read, or is not a photo.
            UnreachableError: No server answers at the URL.
            DeadlineExceededError: There was no answer within the timeout.
            ModelNotReadyError: The model is not loaded.
            ServerError: The server failed.
            ConfigurationError: The timeout is invalid, a library for the URL is missing, or the model's config does not
                describe its outputs as expected, or not how to explain them.
        """
        return self._run(lambda client: client.analyze(photo, timeout=timeout, request_id=request_id, explain=explain))

    def analyze_many(
        self, photos: Iterable[Photo], *, concurrency: int = 8, timeout: float | None = None
    ) -> Generator[Analysis | Failure, None, None]:
        """Analyse many photos, several at a time.

        Photos are read from the iterable only as results are consumed: it may be infinite, and at most `concurrency`
        photos are in memory. Closing the generator early cancels the calls in flight.

        Args:
            photos: Whatever `analyze` takes, any number of them.
            concurrency: How many photos are analysed at once.
            timeout: The time limit for each photo in seconds; None for the client's own.

        Returns:
            For each photo, in order, its `Analysis`, or a `Failure` with the error.

        Raises:
            ConfigurationError: `concurrency` or `timeout` is invalid.
            TypeError: `photos` is a single photo.
        """
        check_analyze_many(photos, concurrency, timeout)
        return self._stream(photos, concurrency, timeout)

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server and its models are ready.

        Args:
            timeout: How long to wait at most, in seconds.

        Raises:
            UnreachableError: No server answered within the timeout.
            DeadlineExceededError: The server answered, but did not become ready in time.
        """
        self._run(lambda client: client.wait_until_ready(timeout))

    def health(self, timeout: float = 5.0) -> Health:
        """Check whether photos can be analysed now. A service that is down is a result here, not an error.

        Args:
            timeout: How long to wait for answers at most, in seconds.
        """
        return self._run(lambda client: client.health(timeout))

    def close(self) -> None:
        """Cancel the calls in flight and close the connections. A closed client cannot be reopened."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
            thread.join()

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
            # The iterable runs in the caller's thread: it may not be safe in another one.
            for photo in photos:
                window.append(self._submit(_try_analyze(photo, timeout)))
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
            thread = self._thread
            if thread is None:
                thread = LoopThread(self._make())
                self._thread = thread
                # Only requests the end of the thread: a garbage collection must not wait for it.
                self._finalizer = weakref.finalize(self, thread.stop)
        return thread.submit(work(thread.client))

    def _discard_thread(self) -> None:
        """Discard the thread in a forked child: it exists only in the parent, which owns the connections."""
        if self._thread is not None:
            _parents_threads.append(self._thread)
            self._finalizer.detach()
        self._thread = None
        self._lock = threading.Lock()


def _try_analyze(
    photo: Photo, timeout: float | None
) -> Callable[[AsyncCarAnalyzer], Coroutine[Any, Any, Analysis | Failure]]:
    return lambda client: client.try_analyze(photo, timeout)


def _wait(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError:
        raise RuntimeError("this client was closed during the call") from None
    except BaseException:
        future.cancel()  # after Ctrl-C, for example; does nothing to a call that has ended
        raise


_clients: weakref.WeakSet[CarAnalyzer] = weakref.WeakSet()
# Never released: closing the parent's event loop in the child would also affect the parent.
_parents_threads: list[LoopThread] = []


def _discard_all_threads() -> None:
    for analyzer in list(_clients):
        analyzer._discard_thread()


def _close_all() -> None:
    for analyzer in list(_clients):
        analyzer.close()


os.register_at_fork(after_in_child=_discard_all_threads)
atexit.register(_close_all)
