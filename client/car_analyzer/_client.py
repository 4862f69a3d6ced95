"""The client for asyncio. The blocking client runs it on a thread of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from ._photo import Photo, to_bytes
from ._results import Analysis, Failure, Health
from ._transports import Answer, Deadline, ExportMismatchError, Transport, open_transport, retry_call, wait_for
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
from .heads import ServedModel, parse_heads

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_RETRY = Retry()
POLL_S = 0.25
MISMATCH_PAUSE_S = 0.02
# Older exports ignore the requested id. After a pause in the calls, one of them may be served.
REFRESH_AFTER_S = 1.0


class AsyncCarAnalyzer:
    """Analyses photos of cars with a Triton, inside one event loop.

    Connections are opened when they are first needed, and reused. Any number of tasks may share one client.

        async with AsyncCarAnalyzer("grpc://localhost:8001") as analyzer:
            analysis = await analyzer.analyze("car.jpg")
            print(analysis.cleanliness.label, analysis.cleanliness.confidence)

    Args:
        url: `grpc://` (also without a scheme), `grpcs://`, `http://` or `https://`; by default `$CAR_ANALYZER_URL`
            or `grpc://localhost:8001`.
        timeout: The default time limit of a call in seconds: reading the photo, all attempts and pauses between them.
        retry: How failed attempts are repeated.
        model: The ensemble's name.
        tls: Certificates for `grpcs://` and `https://`, if the system's are not sufficient.
        headers: Sent with every request, such as `{"Authorization": "Bearer …"}`.

    Raises:
        ConfigurationError: One of these is invalid. (There is no connection yet.)
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
        self._has_answered = False
        self._served: ServedModel | None = None
        self._confirmed_at = 0.0

    @property
    def url(self) -> str:
        """The server's URL, complete with scheme and port."""
        return str(self._endpoint)

    async def analyze(self, photo: Photo, *, timeout: float | None = None, request_id: str | None = None) -> Analysis:
        """Analyse one photo.

        Args:
            photo: A path, the bytes of an image file, an open binary file, a Pillow image, or an RGB array of
                uint8 with shape [height, width, 3].
            timeout: The time limit in seconds; None for the client's own.
            request_id: Appears in Triton's logs and traces.

        Raises:
            PhotoError: The photo cannot be read, or is not a photo.
            UnreachableError: No server answers at the URL.
            DeadlineExceededError: There was no answer within the timeout.
            ModelNotReadyError: The model is not loaded.
            ServerError: The server failed.
            ConfigurationError: The timeout is invalid, or the model's config does not describe its outputs as expected.
        """
        deadline = Deadline(self._timeout if timeout is None else seconds(timeout))
        try:
            data = await wait_for(deadline.left, to_bytes(photo))
        except asyncio.TimeoutError as error:
            raise deadline.error("reading the photo") from error
        return await retry_call(
            lambda left: self._analyze_once(data, request_id or "", left),
            deadline,
            self._retry,
            lambda: self._has_answered,
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
                health = await self._check_health(max(left, POLL_S))
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
            return await self._check_health(limit)
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

    async def _analyze_once(self, photo: bytes, request_id: str, timeout: float) -> Analysis:
        try:
            served, answer, elapsed = await self._infer(photo, request_id, Deadline(timeout))
        except UnreachableError:
            self._served = None
            raise
        except (DeadlineExceededError, ModelNotReadyError):
            raise
        except CarAnalyzerError:
            self._has_answered = True
            raise
        heads = {head.name: head.read(answer.outputs.get(head.output)) for head in served.heads}
        return Analysis(heads, elapsed * 1000, answer.model_version, served.export_id, served.exif_rotation)

    async def _infer(self, photo: bytes, request_id: str, deadline: Deadline) -> tuple[ServedModel, Answer, float]:
        """Send a photo until the export that answers is the one whose labels the client has read."""
        transport = self._connect()
        while True:
            served = await self._served_model(deadline)
            start = time.perf_counter()
            timeout = max(deadline.left, 0.001)
            try:
                answer = await transport.infer(
                    self._model, photo, timeout=timeout, request_id=request_id, export_id=served.export_id
                )
            except ExportMismatchError:
                pass
            else:
                elapsed = time.perf_counter() - start
                self._has_answered = True
                if served.export_id is None:
                    served = await self._fetch_model(answer.model_version, deadline)
                    if served.export_id is None:
                        return served, answer, elapsed
                elif served.version in (answer.model_version, None):
                    self._confirmed_at = time.monotonic()
                    return served, answer, elapsed
            if not deadline.left:
                raise deadline.error("finding a server with the export whose labels were read")
            # Another export is served now, or several servers behind the address have different ones for a while.
            # A round-robin load balancer may send each config request to one server and each photo to another, so
            # the client reads the config again only in every second attempt on average.
            if random.random() < 0.5:  # noqa: S311
                self._served = None
            await asyncio.sleep(random.uniform(0, MISMATCH_PAUSE_S))  # noqa: S311

    async def _served_model(self, deadline: Deadline) -> ServedModel:
        served = self._served
        if served is None or time.monotonic() > self._confirmed_at + REFRESH_AFTER_S:
            self._served = served = await self._fetch_model("", deadline)
            self._confirmed_at = time.monotonic()
        return served

    async def _fetch_model(self, version: str, deadline: Deadline) -> ServedModel:
        try:
            config = await self._connect().model_config(self._model, version, timeout=max(deadline.left, 0.001))
        except ModelNotReadyError as error:
            if version:
                raise OverloadedError(f"version {version} was replaced while it answered") from error
            raise
        heads = parse_heads(config.parameters.get("heads"), self._model)
        return ServedModel(config.parameters.get("export_id"), config.version, heads)

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

    async def _check_health(self, timeout: float) -> Health:
        transport = self._connect()
        server_ready = await transport.is_server_ready(timeout=timeout)
        self._has_answered = True
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
        return Health(
            self.url,
            message is None,
            server_ready,
            models,
            message,
            config.version,
            config.parameters.get("export_id"),
            config.parameters.get("description"),
            config.parameters.get("demo") == "true",
        )

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
