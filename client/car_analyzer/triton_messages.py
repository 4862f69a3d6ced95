"""What only the text of an error tells: one table for both protocols.

The transports use gRPC codes and HTTP statuses wherever those are unambiguous. Triton uses one code for several
causes: UNAVAILABLE (503) is a full queue, a Triton that is shutting down, or a missing header. gRPC itself uses it for
a lost connection.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple


class Cause(enum.Enum):
    """The cause of an error, as its message tells it."""

    BACKEND_RESTARTING = "Triton lost contact with a process of its own; this is temporary and not the photo's fault"
    SHUTTING_DOWN = "Triton is shutting down"
    NO_VERSION_LOADED = "Triton has the model but no version of it is loaded, as in the last moments of a shutdown"
    UNKNOWN_MODEL = "Triton does not have the model"
    OTHER_EXPORT = "the server has another export than the one that was requested"
    STEP_REJECTED = "a step of the ensemble rejected its input; Triton's own request checks have no such prefix"
    PHOTO_EMPTY = "the preprocess step got a photo without bytes"
    PHOTO_TOO_LARGE = "the preprocess step got a photo with too many bytes or pixels"
    RESTRICTED = "the API requires a header that was not sent"
    TOO_LARGE = "the message is larger than one side accepts"
    NO_CONNECTION = "there was no connection, or it was lost"
    STREAM_RESET = "the server, or a proxy, aborted the call"


class Pattern(NamedTuple):
    """A row of the table.

    Attributes:
        regex: Found anywhere in the message, by `re.search`.
        cause: What it means.
        seen_in: The version in which it was seen: of Triton, or of the gRPC library on the client's side.
    """

    regex: str
    cause: Cause
    seen_in: str


PATTERNS = (
    # A process died, a message to or from it was lost, or the shared memory is used up.
    Pattern(r"Stub process .* not healthy", Cause.BACKEND_RESTARTING, "Triton 2.51"),
    Pattern(r"Failed to copy the output tensor", Cause.BACKEND_RESTARTING, "Triton 2.51"),
    Pattern(r"[Ff]ailed to increase the shared memory pool", Cause.BACKEND_RESTARTING, "Triton 2.51"),
    Pattern(r"Server (is stopping|not ready)", Cause.SHUTTING_DOWN, "Triton 2.51"),
    Pattern(r"The service is stopping", Cause.SHUTTING_DOWN, "this project's gateway"),
    Pattern(r"has no available versions", Cause.NO_VERSION_LOADED, "Triton 2.51"),
    # HTTP only, where some Tritons answer 400. In gRPC, NOT_FOUND is unambiguous.
    Pattern(r"unknown model", Cause.UNKNOWN_MODEL, "Triton 2.51"),
    # With NOT_FOUND (404), raised by this project's preprocess step.
    Pattern(r"Export \S+ is not served here", Cause.OTHER_EXPORT, "this project's preprocess step"),
    # INVALID_ARG (400) is a bad photo, or a request that does not fit the model.
    Pattern(r"^(\[request id: [^\]]*\] )*in ensemble '", Cause.STEP_REJECTED, "Triton 2.51"),
    # With INVALID_ARG (400), all raised by this project's preprocess step.
    Pattern(r"The photo is empty", Cause.PHOTO_EMPTY, "this project's preprocess step"),
    Pattern(r"The photo has [\d,]+ bytes; at most", Cause.PHOTO_TOO_LARGE, "this project's preprocess step"),
    Pattern(r"The photo is \d+ x \d+ pixels", Cause.PHOTO_TOO_LARGE, "this project's preprocess step"),
    Pattern(r"photo would take too much memory", Cause.PHOTO_TOO_LARGE, "this project's preprocess step"),
    # gRPC only, with UNAVAILABLE. In HTTP, 403 is unambiguous.
    Pattern(r"is restricted, expecting header", Cause.RESTRICTED, "Triton 2.51"),
    # Proxies use RESOURCE_EXHAUSTED for rate limits, too.
    Pattern(r"larger than max", Cause.TOO_LARGE, "grpcio 1.85"),
    # With INVALID_ARG (400), before any step.
    Pattern(r"--http-max-input-size", Cause.TOO_LARGE, "Triton's main branch, read in its tests"),
    # UNAVAILABLE is a busy server or a connection that failed. These messages come from the client's own gRPC library.
    Pattern(
        r"(?i:\b(failed to connect|connections?|refused|reset|socket|endpoint|transport|goaway|keepalive|ping"
        r"|broken pipe|recvmsg|sendmsg|end of tcp|stream removed|resolving|resolution)\b)",
        Cause.NO_CONNECTION,
        "grpcio 1.85",
    ),
    # INTERNAL and UNKNOWN are Triton's own failures, too.
    Pattern(r"RST_STREAM", Cause.STREAM_RESET, "grpcio 1.85"),
)
_REGEX_OF = {
    cause: re.compile("|".join(f"(?:{row.regex})" for row in PATTERNS if row.cause is cause)) for cause in Cause
}
_PREFIXES = re.compile(r"^(in ensemble '[^']*', |\[request id: [^\]]*\] )*")
# A Triton that is shutting down can send a message from memory that it has already freed.
_FREED_MEMORY = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def has_cause(message: str, cause: Cause) -> bool:
    """Whether a message has a pattern of that cause."""
    return _REGEX_OF[cause].search(message) is not None


def clean_message(message: str) -> str:
    """A message without Triton's prefixes, which name models and ids that mean nothing to a caller."""
    message = _PREFIXES.sub("", message.strip())
    return message if message and not _FREED_MEMORY.search(message) else "the server gave no reason"
