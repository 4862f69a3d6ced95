"""Stops decoding while enough decoded photos wait for the networks.

Under overload, photos are decoded faster than the networks take them. Triton before 26.03 cannot limit the queues of an
ensemble's later steps (it never answers what it rejects there), so decoded photos would take memory and processor time,
and then expire. While decoding waits, further photos are rejected at the first step's queue, which has a limit.

The numbers come from Triton's metrics; `serve` sets an environment variable with their address. Without it, or without
metrics, nothing waits.
"""

from __future__ import annotations

import http.client
import os
import re
import time
from urllib.parse import urlsplit

# Reading the metrics takes 0.2 ms, so they are not read for each photo.
CHECKED_EVERY = 32
# The networks take less for a batch on a GPU, and more on a CPU.
_PAUSE_S = 0.01
# Networks that take this long do not answer in time anyway; the limit is for wrong numbers.
_LONGEST_S = 10.0
_TIMEOUT_S = 2.0
_PENDING = re.compile(
    rb'^nv_inference_pending_request_count\{model="([^"]+)".*?version="(\d+)".*\} (\d+)', re.MULTILINE
)


class Backlog:
    """The decoded photos that wait for networks.

    Args:
        networks: The models that take decoded photos.
        version: Their version. Another one that is loaded beside it, and may be slow, does not count.
        limit: How many requests may wait for one of them.
    """

    def __init__(self, networks: list[str], version: str, limit: int) -> None:
        self._networks = {(name.encode(), version.encode()) for name in networks}
        self._limit = limit
        self._decoded = 0
        metrics = urlsplit(os.environ.get("CAR_ANALYZER_METRICS_URL", "")).netloc
        self._connection = http.client.HTTPConnection(metrics, timeout=_TIMEOUT_S) if metrics else None

    def wait(self, requests: int = 1) -> None:
        """Call this before so many requests; returns when their photos may be decoded."""
        self._decoded += requests
        if self._connection is None or self._decoded < CHECKED_EVERY:
            return
        self._decoded = 0
        deadline = time.monotonic() + _LONGEST_S
        while self._waiting(self._connection) >= self._limit and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)

    def _waiting(self, connection: http.client.HTTPConnection) -> int:
        try:
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            return 0
        counts = (int(count) for name, version, count in _PENDING.findall(metrics) if (name, version) in self._networks)
        return max(counts, default=0)
