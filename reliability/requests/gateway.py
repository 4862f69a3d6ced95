"""What no client should send to the gateway, above all slowly; meanwhile others are to be answered."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from reliability.known import known_photos
from reliability.table import Row

from .http_cases import NO_HTTP
from .wire import chunked, exchange, head, post

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TextIO

UPLOAD_S = 3
# The gateway gives a request's head 10 s. The rest is for a machine that has other things to do.
BOUND_S = 45.0
FORM = {"Content-Type": "multipart/form-data; boundary=x1y2"}
PART = b'--x1y2\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
PATH = "/analyze"
FULL = 19_000_000
HALF_OPEN = 200

_FORM = {"Content_Type": FORM["Content-Type"]}
_IMAGE = {"Content_Type": "image/jpeg"}


def _pipelined(count: int) -> bytes:
    return head("GET", "/health", {"Host": "x"}) * count


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
"""Each deserves a 4xx."""

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
"""How it starts, and what comes ten times a second from then on. Each has to be ended by the gateway."""


@contextlib.contextmanager
def running(url: str, log: TextIO) -> Iterator[tuple[str, int]]:
    """Runs a gateway that is less patient than usual; gives its address."""
    command = [sys.executable, "-m", "car_analyzer_gateway", "--port", "0", "--json", "--url", url]
    command += ["--upload-timeout", str(UPLOAD_S)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAR_ANALYZER_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=clean) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield "127.0.0.1", int(json.loads(line)["gateway"].rpartition(":")[2])
            if process.poll() is not None:
                raise RuntimeError(f"the gateway stopped by itself with exit code {process.returncode}")
        finally:
            process.terminate()


class Visitor:
    """Somebody who goes on sending a known photo, and counts the answers. A context manager."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._visit)
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _visit(self) -> None:
        while not self._stop.wait(0.2):
            started = time.monotonic()
            self.counts[ask(self._address)] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)


def ask(address: tuple[str, int]) -> str:
    """Sends a known photo; returns `right`, or what came in place of the known answer."""
    known = known_photos()[0]
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=BOUND_S)) as connection:
        try:
            connection.request("POST", PATH, known.photo, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            result = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{type(error).__name__}: {error}"
    if answer.status != 200:
        return f"{answer.status} {result.get('error')}"
    return "right" if known.agrees_as_json(result) else f"wrong: {result}"


def trials(address: tuple[str, int], progress: Callable[[], object] = lambda: None) -> tuple[list[Row], list[str]]:
    """Sends all of it; returns the table's rows and what went wrong."""
    with Visitor(address) as visitor, ThreadPoolExecutor(2) as pool:
        # At the same time: most of it is waiting.
        ended, closed = pool.submit(slow_requests, address), pool.submit(half_open, address)
        wrong, slow, open_still = wrong_requests(address, progress), ended.result(), closed.result()
    rows = [
        Row("wrong requests to the gateway", len(CASES) + len(NO_HTTP) + 1, len(wrong), "4xx, or the connection's end"),
        Row("slow requests to the gateway", len(SLOW), len(slow), "ended by the gateway"),
        Row("half-open connections", HALF_OPEN, len(open_still), "ended by the gateway"),
    ]
    lost = visitor.counts.total() - visitor.counts["right"]
    note = f"known photos by somebody else meanwhile, each within {visitor.slowest:.1f} s"
    rows.append(Row("others at the gateway", visitor.counts.total(), lost, note))
    others = [f"gateway, others meanwhile: {dict(visitor.counts)}"] if lost else []
    return rows, wrong + slow + open_still + others


def wrong_requests(address: tuple[str, int], progress: Callable[[], object] = lambda: None) -> list[str]:
    """Sends what is wrong or no HTTP; returns what was not answered as it should be."""
    complaints = []
    for name, content in CASES.items():
        reply = exchange(address, content, silence=BOUND_S)
        if not 400 <= reply.status < 500 or (reply.body and not reply.error):
            complaints.append(f"gateway, {name}: {reply.status} {reply.body[:300]!r}")
        progress()
    for name, content in NO_HTTP.items():
        reply = exchange(address, content, finish=True, silence=BOUND_S)
        if reply.status >= 500 or not (reply.status or reply.closed):
            complaints.append(f"gateway, {name}: {reply}")
        progress()
    reply = exchange(address, _pipelined(1000) + post(PATH, b"", Connection="close"), silence=BOUND_S)
    if reply.status != 200:
        complaints.append(f"gateway, a thousand requests at once: {reply.status}")
    return complaints


def slow_requests(address: tuple[str, int]) -> list[str]:
    """Sends what never ends, all at the same time; returns what the gateway did not end."""
    with ThreadPoolExecutor(len(SLOW)) as pool:
        seconds = pool.map(lambda parts: drip(address, *parts), SLOW.values())
        return [
            f"gateway, {name}: open after {took:.0f} s"
            for name, took in zip(SLOW, seconds, strict=True)
            if took >= BOUND_S
        ]


def drip(address: tuple[str, int], start: bytes, drop: bytes) -> float:
    """Sends something ten times a second until the gateway ends it; returns after how many seconds that was."""
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


def half_open(address: tuple[str, int]) -> list[str]:
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
                pass  # reset is ended, too
    return left
