"""Wrong and slow requests to a gateway; meanwhile its other clients must be answered."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .harness import Row
from .load import Load, gateway
from .raw_http import chunked, exchange, head, post
from .reference import reference_photos
from .service import Gateway

if TYPE_CHECKING:
    from collections.abc import Mapping

UPLOAD_TIMEOUT_S = 3
# The gateway's timeout for a request's head is 10 s. The rest is for a machine that is busy.
BOUND_S = 45.0
FORM = {"Content-Type": "multipart/form-data; boundary=x1y2"}
PART = b'--x1y2\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
PATH = "/analyze"
FULL = 19_000_000
HALF_OPEN = 200
_FORM = {"Content_Type": FORM["Content-Type"]}
_IMAGE = {"Content_Type": "image/jpeg"}

CASES: Mapping[str, bytes] = {
    "an empty request": post(PATH, b""),
    "a text as a photo": post(PATH, b"text", **_IMAGE),
    "a header of 1 MB": head("GET", "/health", {"Host": "x", "X": "a" * 1_000_000}),
    "100,000 headers": head("GET", "/health", {f"X-{number}": "a" for number in range(100_000)}),
    "a path of 70,000 letters": head("GET", "/" + "a" * 70_000, {"Host": "x"}),
    "a path up": head("GET", "/../../etc/passwd", {"Host": "x"}),
    "a negative length": post(PATH, b"", Content_Length=-1, **_IMAGE),
    "a length of text": post(PATH, b"", Content_Length="all", **_IMAGE),
    "a length of 2 ** 70": post(PATH, b"x", Content_Length=2**70, **_IMAGE),
    "a length of 4 GB": post(PATH, b"x", Content_Length=2**32, **_IMAGE),
    "two lengths": post(PATH, b"xxx", content_length=2, **_IMAGE),
    "a length and chunks": post(PATH, b"0\r\n\r\n", Transfer_Encoding="chunked", **_IMAGE),
    "an unknown transfer encoding": post(PATH, b"x", Transfer_Encoding="zip", **_IMAGE),
    "a compressed photo": post(PATH, b"x", Content_Encoding="gzip", **_IMAGE),
    "a chunk of no size": chunked(PATH, [b"photo\r\n"]),
    "a negative chunk": chunked(PATH, [b"-5\r\nphoto\r\n"]),
    "a chunk of 2 ** 64": chunked(PATH, [b"10000000000000000\r\nx"]),
    "a form without a boundary": post(PATH, b"x", Content_Type="multipart/form-data"),
    "a form that is none": post(PATH, b"x" * 1000, **_FORM),
    "a form without its end": post(PATH, PART + b"x", **_FORM),
    "a form with a name of 1 MB": post(PATH, PART.replace(b"image", b"i" * 1_000_000) + b"\r\n--x1y2--\r\n", **_FORM),
    "a form with thousands of fields": post(PATH, PART.replace(b"image", b"i") * 10_000 + b"\r\n--x1y2--\r\n", **_FORM),
    "a form with thousands of photos": post(PATH, (PART + b"x\r\n") * 10_000 + b"--x1y2--\r\n", **_FORM),
    "a part with a header of 19 MB": post(PATH, b"--x1y2\r\nX: " + b"a" * FULL + b"\r\n\r\n\r\n--x1y2--\r\n", **_FORM),
    "a part with a million headers": post(PATH, b"--x1y2\r\n" + b"X: a\r\n" * 1_000_000 + b"\r\n--x1y2--\r\n", **_FORM),
    "a preamble of 19 MB": post(PATH, b"\r\n" * (FULL // 2) + PART + b"x\r\n--x1y2--\r\n", **_FORM),
    "an epilogue of 19 MB": post(PATH, PART + b"x\r\n--x1y2--\r\n" + b"x" * FULL, **_FORM),
    "a photo of 21 MB": post(PATH, bytes(21_000_000), **_IMAGE),
    "one-byte chunks": chunked(PATH, [b"1\r\nx\r\n" * 100_000, b"0\r\n\r\n"]),
    "DELETE": head("DELETE", PATH, {"Host": "x"}),
    "an unknown path": head("GET", "/admin", {"Host": "x"}),
}
"""Each must be answered with a 4xx."""

NOT_HTTP: Mapping[str, bytes] = {
    "no HTTP": b"hello\r\n\r\n",
    "HTTP of the future": b"GET /health HTTP/9.9\r\n\r\n",
    "zeros": bytes(10_000),
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "a header without a name": b"GET /x HTTP/1.1\r\n: x\r\n\r\n",
    "a header without a colon": b"GET /x HTTP/1.1\r\nHost\r\n\r\n",
    "a header with a null character": b"GET /x HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "a path with a null character": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body that ends early": post(PATH, b"x" * 1000, Content_Length=10**6, **_IMAGE),
}
"""What is no request, or only the start of one: a 4xx or a closed connection will do."""

_SLOW_BODY = head("POST", PATH, {"Host": "x", "Content-Type": "image/jpeg", "Content-Length": 10_000})
_SLOW_FORM = head("POST", PATH, {"Host": "x", **FORM, "Content-Length": 10_000})
_SLOW_CHUNKS = head("POST", PATH, {"Host": "x", "Content-Type": "image/jpeg", "Transfer-Encoding": "chunked"})

SLOW: Mapping[str, tuple[bytes, bytes]] = {
    "nothing at all": (b"", b""),
    "a head, letter by letter": (b"GET /health HTTP/1.1\r\nHost: x\r\nX: ", b"a"),
    "a head without end": (b"GET /health HTTP/1.1\r\n", b"X: a\r\n"),
    "a photo, byte by byte": (_SLOW_BODY, b"x"),
    "a photo in chunks, byte by byte": (_SLOW_CHUNKS, b"1\r\nx\r\n"),
    "a form's preamble, byte by byte": (_SLOW_FORM, b"\r\n"),
    "a form's header, byte by byte": (_SLOW_FORM + b"--x1y2\r\nX: ", b"a"),
    "a form's photo, byte by byte": (_SLOW_FORM + PART, b"x"),
}
"""The start, and what follows ten times a second. The gateway must end each."""


def trials(triton: str) -> tuple[list[Row], list[str]]:
    """Sends all of it to a gateway of its own; returns the table's rows and what went wrong."""
    with Gateway(triton, f"--upload-timeout={UPLOAD_TIMEOUT_S}") as front:
        address = ("127.0.0.1", int(front.url.rpartition(":")[2]))
        others = Load(front.url, reference_photos(), workers=1, timeout=BOUND_S, rate=5, transport=gateway)
        with others, ThreadPoolExecutor(2) as pool:
            # At the same time: most of it is waiting.
            ended, closed = pool.submit(slow_requests, address), pool.submit(half_open_connections, address)
            wrong, slow, still_open = wrong_requests(address), ended.result(), closed.result()
        if front.ended:
            wrong.append("gateway: it ended by itself")
    note = f"reference photos sent meanwhile, each answered within {others.slowest:.1f} s"
    wrong_count = len(CASES) + len(NOT_HTTP) + 1
    return [
        Row("wrong requests to the gateway", wrong_count, len(wrong), "4xx, or the connection is closed"),
        Row("slow requests to the gateway", len(SLOW), len(slow), "ended by the gateway"),
        Row("half-open connections", HALF_OPEN, len(still_open), "ended by the gateway"),
        Row("other clients of the gateway", len(others.outcomes), others.lost, note),
    ], [*wrong, *slow, *still_open, *(f"gateway, other clients: {error}" for error in others.errors())]


def wrong_requests(address: tuple[str, int]) -> list[str]:
    """Sends wrong requests; returns those that were not answered as they should be."""
    complaints = []
    for name, content in CASES.items():
        reply = exchange(address, content, timeout=BOUND_S)
        if reply is None or not 400 <= reply[0] < 500 or (reply[1] and not _is_error(reply[1])):
            complaints.append(f"gateway, {name}: {reply}")
    for name, content in NOT_HTTP.items():
        reply = exchange(address, content, finish=True, timeout=BOUND_S)
        if reply is None or reply[0] >= 500:
            complaints.append(f"gateway, {name}: {reply}")
    pipelined = head("GET", "/health", {"Host": "x"}) * 1000 + post(PATH, b"", Connection="close")
    reply = exchange(address, pipelined, timeout=BOUND_S)
    if reply is None or reply[0] != 200:
        complaints.append(f"gateway, a thousand requests at once: {reply}")
    return complaints


def _is_error(body: bytes) -> bool:
    """Whether it is JSON with a message."""
    try:
        return bool(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return False


def slow_requests(address: tuple[str, int]) -> list[str]:
    """Sends requests that never end, all at the same time; returns those that the gateway did not end."""
    with ThreadPoolExecutor(len(SLOW)) as pool:
        seconds = pool.map(lambda parts: drip(address, *parts), SLOW.values())
        return [
            f"gateway, {name}: open after {took:.0f} s"
            for name, took in zip(SLOW, seconds, strict=True)
            if took >= BOUND_S
        ]


def drip(address: tuple[str, int], start: bytes, drop: bytes) -> float:
    """Sends something ten times a second until the gateway ends it; returns after how many seconds."""
    started = time.monotonic()
    with socket.create_connection(address, timeout=0.1) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(start)
            while (passed := time.monotonic() - started) < BOUND_S:
                connection.sendall(drop)
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(65_536):
                        break
        return min(passed, BOUND_S)


def half_open_connections(address: tuple[str, int]) -> list[str]:
    """Opens many connections, sends half a head on each, and waits; returns which the gateway did not end."""
    left, deadline = [], time.monotonic() + BOUND_S
    with contextlib.ExitStack() as stack:
        connect = functools.partial(socket.create_connection, address, timeout=BOUND_S)
        connections = [stack.enter_context(connect()) for _ in range(HALF_OPEN)]
        for connection in connections:
            connection.sendall(b"POST /analyze HTTP/1.1\r\nHost: x\r\n")
        for number, connection in enumerate(connections):
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                while connection.recv(65_536):
                    pass
            except TimeoutError:
                left.append(f"gateway, half-open connection {number}: still open")
            except OSError:
                pass  # a reset ends it, too
    return left
