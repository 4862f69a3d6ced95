"""The stream through the gateway: what a web app sends and gets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from .stream import Outcome, S, Stream

if TYPE_CHECKING:
    from types import TracebackType

    from .known import Known

_REFUSALS = (400, 413)


@dataclass
class GatewayStream(Stream):
    """A stream of uploads to a gateway; `url` is the gateway's."""

    def __enter__(self: S) -> S:
        self._http = httpx.Client(base_url=self.url, timeout=self.timeout, headers=self.headers)
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._join()
        self._http.close()

    def _send(self, known: Known) -> Outcome:
        start = time.monotonic()
        try:
            answer = self._http.post("/analyze", files={"image": (known.name, known.photo)})
        except httpx.HTTPError as error:
            return Outcome(start, time.monotonic() - start, "failed", repr(error))
        seconds = time.monotonic() - start
        if known.logits is None and answer.status_code in _REFUSALS:
            return Outcome(start, seconds, "right")
        if answer.status_code != 200:
            return Outcome(start, seconds, "failed", f"{known.name}: {answer.status_code} {answer.text}")
        if known.agrees_as_json(answer.json()):
            return Outcome(start, seconds, "right")
        return Outcome(start, seconds, "wrong", f"{known.name}: {answer.text}")
