"""Sends wrong requests to a running Triton; each must be blamed on the client, and harm nobody.

Not sent, because no setting of Triton 2.51 prevents what it does:

- JSON of about 150,000 lists or objects inside each other, by HTTP: Triton parses it recursively and dies of it. Mended
  upstream in 2026. gRPC has no JSON, and the gateway speaks gRPC.
- Connections by HTTP that never finish a request: Triton never closes them. Two thousand did not hold up anybody, but
  each costs a file descriptor.

So Triton's HTTP port is for those one trusts. Strangers come by the gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc  # type: ignore[import-untyped]

from reliability.known import known_photos
from reliability.photos.ask import TIMEOUT_S, Asker, BrokenError, Running
from reliability.table import Row

from . import grpc_cases, http_cases
from .wire import SILENCE_S, Reply, exchange

if TYPE_CHECKING:
    from collections.abc import Callable

# What gRPC's own documentation calls the caller's mistakes; Triton answers UNAVAILABLE where its key is missing.
CLIENT_ERRORS = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "RESOURCE_EXHAUSTED",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
}
RESTRICTED = "This protocol is restricted"

# Known limits of Triton 2.51 that no setting removes; none of these harms the server. JSON that cannot be read is
# answered with 500 in place of 400, a protobuf that cannot be read with INTERNAL, an unknown Content-Encoding with 501.
UPSTREAM_500 = ("Unable to parse", "failed to parse the request JSON", "Unable to set", "failed to get request params")
# Of a batch size, it looks at the lower 32 bits only, and of a number at as many as the type has; the photos that are
# there get their own answers. Data after the last input is ignored.
HTTP_ANSWERED = {"a batch of 2 ** 40", "a head with pixels out of range"}
GRPC_ANSWERED = {"the most negative batch", "one piece of data too many"}
# evhtp closes the connection of what it cannot parse.
HTTP_CLOSED = {
    "a model of 60,000 letters",
    "a path of 70,000 letters",
    "a header of 1 MB",
    "a negative length",
    "a length of text",
    "a chunk of no size",
    "a negative chunk",
}
# evhtp waits for the rest.
HTTP_WAITING = {"a chunk of 2 ** 64"}


class Requests:
    """A trial on one server.

    Args:
        server: Running, with the demo models.
        progress: Called after each request.
        each: After how many requests a known photo is asked for.

    Attributes:
        rows: What was tried.
        complaints: What went wrong, by name.
    """

    def __init__(self, server: Running, progress: Callable[[], object] = lambda: None, each: int = 1) -> None:
        self.rows: list[Row] = []
        self.complaints: list[str] = []
        self._asker = Asker(server)
        self._http = ("127.0.0.1", int(server.http_url.rpartition(":")[2]))
        self._grpc = server.grpc_url.partition("://")[2]
        self._progress = progress
        self._each = each
        self._sent = 0

    def run(self) -> None:
        """Sends them all."""
        with self._asker:
            self._over_http()
            self._over_grpc()

    def _over_http(self) -> None:
        before, known = len(self.complaints), 0
        for name, content in http_cases.CASES.items():
            reply = exchange(self._http, content, silence=SILENCE_S if name in HTTP_WAITING else TIMEOUT_S)
            if not 400 <= reply.status < 500:
                known += self._excuse(name, reply)
            self._check(name, "http")
        for name, content in http_cases.NO_HTTP.items():
            reply = exchange(self._http, content, finish=True, silence=TIMEOUT_S)
            if reply.status >= 500 or not (reply.status or reply.closed):
                self.complaints.append(f"http, {name}: {reply}")
            self._check(name, "http")
        tried = len(http_cases.CASES) + len(http_cases.NO_HTTP)
        note = f"{known} answered otherwise than with 4xx, as Triton 2.51 is known to"
        self.rows.append(Row("wrong requests over HTTP", tried, len(self.complaints) - before, note))

    def _excuse(self, name: str, reply: Reply) -> int:
        if reply.status == 500 and reply.error.startswith(UPSTREAM_500):
            return 1
        if reply.status == 501 and "compression" in reply.error:
            return 1
        if reply.status == 200 and name in HTTP_ANSWERED:
            return 1
        if not reply.status and name in (HTTP_CLOSED if reply.closed else HTTP_WAITING):
            return 1
        self.complaints.append(f"http, {name}: {reply.status} {reply.body[:300]!r}")
        return 0

    def _over_grpc(self) -> None:
        before, known = len(self.complaints), 0
        with grpc.insecure_channel(self._grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
            calls = [("ModelInfer", name, infer.SerializeToString()) for name, infer in grpc_cases.INFERENCES.items()]
            calls += [(method, name, message) for name, (method, message) in grpc_cases.GARBAGE.items()]
            for method, name, message in calls:
                status, text = grpc_cases.call(channel, method, message)
                if status in CLIENT_ERRORS or (status == "UNAVAILABLE" and text.startswith(RESTRICTED)):
                    pass
                elif (status == "INTERNAL" and text == "Unable to parse request") or (
                    status == "OK" and name in GRPC_ANSWERED
                ):
                    known += 1
                else:
                    self.complaints.append(f"gRPC, {name}: {status} {text[:300]}")
                self._check(name, "grpc")
            for name in grpc_cases.STREAMED:
                status, text = grpc_cases.stream(channel, grpc_cases.INFERENCES[name])
                if status != "ERROR":
                    self.complaints.append(f"gRPC stream, {name}: {status} {text[:300]}")
                self._check(name, "grpc")
        tried = len(calls) + len(grpc_cases.STREAMED)
        note = f"{known} answered otherwise than with a client's error, as Triton 2.51 is known to"
        self.rows.append(Row("wrong requests over gRPC", tried, len(self.complaints) - before, note))

    def _check(self, name: str, protocol: str) -> None:
        """The server still knows what it knew."""
        self._progress()
        self._sent += 1
        if self._sent % self._each:
            return
        photo = known_photos()[0]
        try:
            answer = self._asker.ask(protocol, photo.photo)
        except BrokenError as error:
            answer = str(error)
        if isinstance(answer, str) or not photo.agrees(answer[0]):
            self.complaints.append(f"{protocol}, after {name}: a known photo got {answer}")
