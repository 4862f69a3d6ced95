"""HTTP as raw bytes on a connection, for requests that no HTTP library would send."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def exchange(
    address: tuple[str, int], content: bytes, *, finish: bool = False, timeout: float
) -> tuple[int, bytes] | None:
    """Sends bytes and reads the first response.

    Args:
        address: Host and port.
        content: What is sent.
        finish: Whether to close the connection in this direction afterwards.
        timeout: For each step, in seconds.

    Returns:
        Status and body; 0 and nothing if the server closed the connection without them; None if it did neither.
    """
    with socket.create_connection(address, timeout) as connection:
        with contextlib.suppress(ConnectionError):  # what the server sent before it closed can still be read
            connection.sendall(content)
            if finish:
                connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
            return response.status, response.read()
        except TimeoutError:
            return None
        except (http.client.HTTPException, OSError):
            return 0, b""


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
    """A POST request with these bytes for its chunks."""
    return head("POST", path, {"Host": "localhost", "Transfer-Encoding": "chunked"}) + b"".join(pieces)
