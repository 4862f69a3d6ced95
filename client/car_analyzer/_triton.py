"""Photos and health checks at a Triton: reads the description of its heads, and interprets its logits with it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from ._results import Analysis, Health
from ._transports import Answer, Deadline, ExportMismatchError, Transport
from .errors import CarAnalyzerError, DeadlineExceededError, ModelNotReadyError, OverloadedError, UnreachableError
from .heads import ServedModel, parse_heads

if TYPE_CHECKING:
    from collections.abc import Callable

MISMATCH_PAUSE_S = 0.02
# Older exports ignore the requested id. After a pause in the calls, one of them may be served.
REFRESH_AFTER_S = 1.0


class Triton:
    """A Triton, or several behind one address.

    Args:
        connect: Returns the transport.
        model: The ensemble's name.
        url: The server's URL.

    Attributes:
        has_answered: Whether it has ever answered properly.
    """

    def __init__(self, connect: Callable[[], Transport], model: str, url: str) -> None:
        self._connect = connect
        self._model = model
        self._url = url
        self._served: ServedModel | None = None
        self._confirmed_at = 0.0
        self.has_answered = False

    async def analyze(self, photo: bytes, request_id: str, deadline: Deadline, *, explain: bool = False) -> Analysis:
        """Analyse one photo, and explain the answers if wanted, in one attempt."""
        try:
            served, answer, elapsed = await self._infer(photo, request_id, deadline)
        except UnreachableError:
            self._served = None
            raise
        except (DeadlineExceededError, ModelNotReadyError):
            raise
        except CarAnalyzerError:
            self.has_answered = True
            raise
        heads = {head.name: head.read(answer.outputs.get(head.output)) for head in served.heads}
        if explain:
            from ._explain import Explainer  # needs numpy, which takes long to import

            heads = await Explainer(self._connect(), self._model, served, photo, request_id, deadline).explain(heads)
        return Analysis(heads, elapsed * 1000, answer.model_version, served.export_id, served.exif_rotation)

    async def health(self, timeout: float) -> Health:
        """Check the server and all models."""
        transport = self._connect()
        server_ready = await transport.is_server_ready(timeout=timeout)
        self.has_answered = True
        try:
            config = await transport.model_config(self._model, "", timeout=timeout)
        except ModelNotReadyError as error:
            return Health(
                self._url, ready=False, server_ready=server_ready, models={self._model: False}, message=str(error)
            )
        names = (self._model, *dict.fromkeys(config.steps))
        loaded = await asyncio.gather(*(transport.is_model_ready(name, timeout=timeout) for name in names))
        models = dict(zip(names, loaded, strict=True))
        missing = [name for name, is_loaded in models.items() if not is_loaded]
        message = (
            f"not loaded: {', '.join(missing)}" if missing else None if server_ready else "the server is not ready"
        )
        return Health(
            self._url,
            message is None,
            server_ready,
            models,
            message,
            config.version,
            config.parameters.get("export_id"),
            config.parameters.get("description"),
            config.parameters.get("demo") == "true",
        )

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
                self.has_answered = True
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
        return ServedModel(config.parameters.get("export_id"), config.version, heads, config.parameters.get("explain"))
