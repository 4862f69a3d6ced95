"""The client for asyncio. The blocking client runs it on a thread of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from ._photo import Photo, to_bytes
from ._results import Analysis, Failure, Health
from ._transports import Deadline, GatewayFoundError, Transport, open_transport, retry_call, wait_for
from ._triton import Triton
from .config import TLS, Endpoint, Retry, check_headers, seconds
from .errors import (
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    OverloadedError,
    ServiceError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from ._transports.gateway import Gateway

DEFAULT_RETRY = Retry()
POLL_S = 0.25

T = TypeVar("T")


class AsyncCarAnalyzer:
    """Analyses photos of cars with a Triton or a gateway, inside one event loop.

    Connections are opened when they are first needed, and reused. Any number of tasks may share one client.

        async with AsyncCarAnalyzer("grpc://localhost:8001") as analyzer:
            analysis = await analyzer.analyze("car.jpg")
            print(analysis.cleanliness.label, analysis.cleanliness.confidence)

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
        self._endpoint = Endpoint.default() if url is None else Endpoint.parse(url)
        if tls is not None and not self._endpoint.is_secure:
            raise ConfigurationError(f"TLS files are for grpcs:// and https://, not for {self._endpoint}")
        if not model:
            raise ConfigurationError("the model needs a name")
        self._timeout = seconds(timeout)
        self._retry = retry
        self._tls = tls
        self._headers = check_headers(headers or {})
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._service: Triton | Gateway = Triton(self._connect, model, self.url)

    @property
    def url(self) -> str:
        """The server's URL, complete with scheme and port."""
        return str(self._endpoint)

    async def analyze(
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
        deadline = Deadline(self._timeout if timeout is None else seconds(timeout))
        try:
            data = await wait_for(deadline.left, to_bytes(photo))
        except asyncio.TimeoutError as error:
            raise deadline.error("reading the photo") from error
        return await retry_call(
            lambda left: self._analyze_once(data, request_id or "", left, explain=explain),
            deadline,
            self._retry,
            lambda: self._service.has_answered,
        )

    def analyze_many(
        self,
        photos: Iterable[Photo] | AsyncIterable[Photo],
        *,
        concurrency: int = 8,
        timeout: float | None = None,
    ) -> AsyncGenerator[Analysis | Failure, None]:
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

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server and its models are ready.

        Args:
            timeout: How long to wait at most, in seconds.

        Raises:
            UnreachableError: No server answered within the timeout.
            OverloadedError: The server rejected all checks within the timeout.
            DeadlineExceededError: The server answered, but did not become ready in time.
        """
        deadline = Deadline(seconds(timeout))
        error: ServiceError = deadline.error(f"waiting for {self.url}")
        while left := deadline.left:
            try:
                health = await self._use(lambda service: service.health(max(left, POLL_S)))
            except (UnreachableError, OverloadedError) as last:  # a server that is shutting down may still answer
                error = last
            else:
                if health.ready:
                    return
                error = DeadlineExceededError(f"not ready within {timeout:g} s: {health.message}")
            await asyncio.sleep(min(POLL_S, deadline.left))
        raise error

    async def health(self, timeout: float = 5.0) -> Health:
        """Check whether photos can be analysed now. A service that is down is a result here, not an error.

        Args:
            timeout: How long to wait for answers at most, in seconds.
        """
        limit = seconds(timeout)
        try:
            return await self._use(lambda service: service.health(limit))
        except CarAnalyzerError as error:
            return Health(self.url, ready=False, message=str(error))

    async def close(self) -> None:
        """Close the connections. A closed client cannot be reopened; closing it again does nothing."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def __aenter__(self) -> AsyncCarAnalyzer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _analyze_once(self, photo: bytes, request_id: str, timeout: float, *, explain: bool) -> Analysis:
        deadline = Deadline(timeout)
        return await self._use(lambda service: service.analyze(photo, request_id, deadline, explain=explain))

    async def _use(self, work: Callable[[Triton | Gateway], Awaitable[T]]) -> T:
        """Do some work at the server. Its first answer shows whether it is a Triton or a gateway."""
        self._connect()
        try:
            return await work(self._service)
        except GatewayFoundError as found:
            transport = found.transport
        from ._transports.gateway import Gateway

        self._connect()  # fails if the client was closed in the meantime
        self._service = Gateway(transport, self.url)
        return await work(self._service)

    async def _stream(
        self, photos: Iterable[Photo] | AsyncIterable[Photo], concurrency: int, timeout: float | None
    ) -> AsyncGenerator[Analysis | Failure, None]:
        window: deque[asyncio.Task[Analysis | Failure]] = deque()
        try:
            async for photo in _iterate(photos):
                window.append(asyncio.create_task(self.try_analyze(photo, timeout)))
                if len(window) >= concurrency:
                    await asyncio.wait({window[0]})
                    yield window.popleft().result()
            while window:
                await asyncio.wait({window[0]})
                yield window.popleft().result()
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    async def try_analyze(self, photo: Photo, timeout: float | None) -> Analysis | Failure:
        """Like `analyze`, but returns errors as a `Failure`."""
        try:
            return await self.analyze(photo, timeout=timeout)
        except CarAnalyzerError as error:
            # Tracebacks would keep the photo in memory for as long as the failure exists.
            error.__cause__ = error.__context__ = None
            return Failure(error.with_traceback(None))

    def _connect(self) -> Transport:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("this client is closed")
        if self._transport is None:
            self._transport, self._loop = open_transport(self._endpoint, self._tls, self._headers), loop
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; create one for each loop")
        return self._transport


def check_analyze_many(photos: object, concurrency: int, timeout: float | None) -> None:
    """Validate the arguments of `analyze_many` at the call, and not at the first result."""
    if isinstance(photos, str | bytes | bytearray | memoryview):
        raise TypeError("analyze_many takes photos, not one photo; analyze takes one")
    if concurrency < 1:
        raise ConfigurationError(f"concurrency is at least 1, not {concurrency!r}")
    if timeout is not None:
        seconds(timeout)


async def _iterate(photos: Iterable[Photo] | AsyncIterable[Photo]) -> AsyncIterator[Photo]:
    if isinstance(photos, AsyncIterable):
        async for photo in photos:
            yield photo
    else:
        for photo in photos:
            yield photo
