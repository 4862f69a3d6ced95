"""The client for asyncio, which is also what the blocking one runs on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from ._photo import Photo, to_bytes
from ._results import Analysis, Failure, Health
from ._transports import Answer, Deadline, ExportMismatchError, Transport, open_transport, persist, within
from .config import TLS, Endpoint, Retry, check_headers, seconds
from .errors import (
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    ModelNotReadyError,
    OverloadedError,
    ServiceError,
    UnreachableError,
)
from .heads import Reading, parse_heads

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_RETRY = Retry()
POLL_S = 0.25
MISMATCH_PAUSE_S = 0.02
# Older exports do not look at the id that is asked for. After a pause, one of them may be served.
IDLE_S = 1.0


class AsyncCarAnalyzer:
    """Asks a Triton about photos of cars, inside one event loop.

    Connections are opened when they are first needed and kept. Any number of tasks may share one client.

        async with AsyncCarAnalyzer("grpc://localhost:8001") as analyzer:
            analysis = await analyzer.analyze("car.jpg")
            print(analysis.cleanliness.label, analysis.cleanliness.confidence)

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
        self._endpoint = Endpoint.default() if url is None else Endpoint.parse(url)
        if tls is not None and not self._endpoint.is_secure:
            raise ConfigurationError(f"TLS files are for grpcs:// and https://, not for {self._endpoint}")
        if not model:
            raise ConfigurationError("the model needs a name")
        self._timeout = seconds(timeout)
        self._retry = retry
        self._model = model
        self._tls = tls
        self._headers = check_headers(headers or {})
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._answered = False
        self._reading: Reading | None = None
        self._read_at = 0.0

    @property
    def url(self) -> str:
        """The URL that is asked, complete with scheme and port."""
        return str(self._endpoint)

    async def analyze(self, photo: Photo, *, timeout: float | None = None, request_id: str | None = None) -> Analysis:
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
        deadline = Deadline(self._timeout if timeout is None else seconds(timeout))
        try:
            data = await within(deadline.left, to_bytes(photo))
        except asyncio.TimeoutError as error:
            raise deadline.error("reading the photo") from error
        return await persist(
            lambda left: self._attempt(data, request_id or "", left), deadline, self._retry, lambda: self._answered
        )

    def analyze_many(
        self,
        photos: Iterable[Photo] | AsyncIterable[Photo],
        *,
        concurrency: int = 8,
        timeout: float | None = None,
    ) -> AsyncGenerator[Analysis | Failure, None]:
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

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait for a server that is starting.

        Args:
            timeout: How long to wait at most, in seconds.

        Raises:
            UnreachableError: Nobody answered to the end.
            OverloadedError: The server refused to the end.
            DeadlineExceededError: The server answered, but did not become ready.
        """
        deadline = Deadline(seconds(timeout))
        error: ServiceError = deadline.error(f"waiting for {self.url}")
        while left := deadline.left:
            try:
                health = await self._examine(max(left, POLL_S))
            except (UnreachableError, OverloadedError) as refusal:  # a server that stops may still be there to say so
                error = refusal
            else:
                if health.ready:
                    return
                error = DeadlineExceededError(f"not ready within {timeout:g} s: {health.message}")
            await asyncio.sleep(min(POLL_S, deadline.left))
        raise error

    async def health(self, timeout: float = 5.0) -> Health:
        """Look whether photos can be analysed now. A service that is down is an answer here, not an error.

        Args:
            timeout: How long to wait for it at most, in seconds.
        """
        limit = seconds(timeout)
        try:
            return await self._examine(limit)
        except CarAnalyzerError as error:
            return Health(self.url, ready=False, message=str(error))

    async def close(self) -> None:
        """Let go of the connections. A closed client stays closed; closing it again does nothing."""
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

    async def _attempt(self, photo: bytes, request_id: str, timeout: float) -> Analysis:
        try:
            reading, answer, elapsed = await self._ask(photo, request_id, Deadline(timeout))
        except UnreachableError:
            self._reading = None
            raise
        except (DeadlineExceededError, ModelNotReadyError):
            raise
        except CarAnalyzerError:
            self._answered = True
            raise
        heads = {head.name: head.read(answer.outputs.get(head.output)) for head in reading.heads}
        return Analysis(heads, elapsed * 1000, answer.model_version, reading.export_id)

    async def _ask(self, photo: bytes, request_id: str, deadline: Deadline) -> tuple[Reading, Answer, float]:
        """Sends a photo until the export that answers is the one whose labels are known."""
        transport = self._connect()
        while True:
            reading = await self._read(deadline)
            start = time.perf_counter()
            timeout = max(deadline.left, 0.001)
            try:
                answer = await transport.infer(
                    self._model, photo, timeout=timeout, request_id=request_id, export_id=reading.export_id
                )
            except ExportMismatchError:
                pass
            else:
                elapsed = time.perf_counter() - start
                self._answered = True
                if reading.export_id is None:
                    reading = await self._read_version(answer.model_version, deadline)
                    if reading.export_id is None:
                        return reading, answer, elapsed
                elif reading.version in (answer.model_version, None):
                    self._read_at = time.monotonic()
                    return reading, answer, elapsed
            if not deadline.left:
                raise deadline.error("finding a server that has the export whose labels were read")
            # Another export is served now, or several are behind the address for a while. A load balancer that takes
            # turns may send every reading to one server and every photo to another; hence the chance.
            if random.random() < 0.5:  # noqa: S311
                self._reading = None
            await asyncio.sleep(random.uniform(0, MISMATCH_PAUSE_S))  # noqa: S311

    async def _read(self, deadline: Deadline) -> Reading:
        reading = self._reading
        if reading is None or time.monotonic() > self._read_at + IDLE_S:
            self._reading = reading = await self._read_version("", deadline)
            self._read_at = time.monotonic()
        return reading

    async def _read_version(self, version: str, deadline: Deadline) -> Reading:
        try:
            config = await self._connect().model_config(self._model, version, timeout=max(deadline.left, 0.001))
        except ModelNotReadyError as error:
            if version:
                raise OverloadedError(f"version {version} was replaced while it answered") from error
            raise
        return Reading(config.export_id, config.version, parse_heads(config.heads, self._model))

    async def _stream(
        self, photos: Iterable[Photo] | AsyncIterable[Photo], concurrency: int, timeout: float | None
    ) -> AsyncGenerator[Analysis | Failure, None]:
        window: deque[asyncio.Task[Analysis | Failure]] = deque()
        try:
            async for photo in _each(photos):
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
        """`analyze`, with what goes wrong as its result."""
        try:
            return await self.analyze(photo, timeout=timeout)
        except CarAnalyzerError as error:
            # Tracebacks would keep the photo in memory for as long as somebody keeps the failure.
            error.__cause__ = error.__context__ = None
            return Failure(error.with_traceback(None))

    async def _examine(self, timeout: float) -> Health:
        transport = self._connect()
        server_ready = await transport.is_server_ready(timeout=timeout)
        self._answered = True
        try:
            config = await transport.model_config(self._model, "", timeout=timeout)
        except ModelNotReadyError as error:
            return Health(
                self.url, ready=False, server_ready=server_ready, models={self._model: False}, message=str(error)
            )
        names = (self._model, *dict.fromkeys(config.steps))
        loaded = await asyncio.gather(*(transport.is_model_ready(name, timeout=timeout) for name in names))
        models = dict(zip(names, loaded, strict=True))
        missing = [name for name, is_loaded in models.items() if not is_loaded]
        message = (
            f"not loaded: {', '.join(missing)}" if missing else None if server_ready else "the server is not ready"
        )
        return Health(self.url, message is None, server_ready, models, message, config.version, config.export_id)

    def _connect(self) -> Transport:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("this client is closed")
        if self._transport is None:
            self._transport, self._loop = open_transport(self._endpoint, self._tls, self._headers), loop
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one for each")
        return self._transport


def check_many(photos: object, concurrency: int, timeout: float | None) -> None:
    """Check what `analyze_many` was given, at the call and not at the first result."""
    if isinstance(photos, str | bytes | bytearray | memoryview):
        raise TypeError("analyze_many takes photos, not one photo; analyze takes one")
    if concurrency < 1:
        raise ConfigurationError(f"concurrency is at least 1, not {concurrency!r}")
    if timeout is not None:
        seconds(timeout)


async def _each(photos: Iterable[Photo] | AsyncIterable[Photo]) -> AsyncIterator[Photo]:
    if isinstance(photos, AsyncIterable):
        async for photo in photos:
            yield photo
    else:
        for photo in photos:
            yield photo
