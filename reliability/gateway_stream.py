"""The stream through the gateway: what a web app sends and gets."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from .service import die_with_parent
from .stream import Outcome, S, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .known import Known

_REFUSALS = (400, 413)


@contextlib.contextmanager
def gateway(triton: str) -> Iterator[str]:
    """A gateway of one's own.

    Args:
        triton: The URL it asks.

    Yields:
        Its own URL.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "car_analyzer_gateway", "--port=0", "--json", "--url", triton],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=die_with_parent,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        try:
            yield json.loads(process.stdout.readline())["gateway"]
        finally:
            process.terminate()


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
