"""HTTP as bytes on a connection, for what no HTTP library would send."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

SILENCE_S = 3.0


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: The HTTP status, or 0 if there was none.
        body: What followed the head.
        closed: Whether the server closed the connection.
    """

    status: int
    body: bytes
    closed: bool

    @property
    def error(self) -> str:
        """The sentence in a JSON error, or nothing."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return ""
        return str(value.get("error", "")) if isinstance(value, dict) else ""


def exchange(
    address: tuple[str, int], *parts: bytes, pause: float = 0.0, finish: bool = False, silence: float = SILENCE_S
) -> Reply:
    """Sends bytes, and reads until a whole answer came, the server closes, or nothing comes for a while.

    Args:
        address: Host and port.
        parts: Sent one after the other.
        pause: Between the parts, in seconds.
        finish: Say that nothing more will be sent.
        silence: How long to wait for something to come, in seconds.
    """
    received, closed = b"", False
    with socket.create_connection(address, timeout=silence) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                if pause:
                    time.sleep(pause)
            if finish:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            closed = True  # the server had enough; what it said before can still be read
        try:
            while not _is_whole(received):
                piece = connection.recv(65_536)
                if not piece:
                    closed = True
                    break
                received += piece
        except TimeoutError:
            pass
        except OSError:
            closed = True
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0
    return Reply(status, body, closed)


def post(path: str, body: bytes, **headers: Any) -> bytes:
    """A POST request. A header of None is left out; underscores in names stand for hyphens."""
    lines = {"Host": "localhost", "Content-Length": len(body)}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    return head("POST", path, lines) + body


def head(method: str, path: str, lines: dict[str, Any]) -> bytes:
    """The head of a request."""
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def chunked(path: str, pieces: Iterable[bytes]) -> bytes:
    """A POST request whose body comes as these chunks, as they are."""
    return head("POST", path, {"Host": "localhost", "Transfer-Encoding": "chunked"}) + b"".join(pieces)


def _is_whole(received: bytes) -> bool:
    top, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in top.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False
