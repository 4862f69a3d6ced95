"""What only an error's words tell: the one table of them, for both protocols.

Where a gRPC code or an HTTP status tells by itself, the transports use that. Triton gives several causes one code:
UNAVAILABLE (503) is a full queue, a Triton that stops and a header that is missing; a lost connection has it, too.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple


class Meaning(enum.Enum):
    """What a sentence says about the service."""

    MENDING = "Triton failed to speak with a process of its own, which passes and is no photo's fault"
    STOPPING = "Triton was told to stop"
    COMING = "Triton knows the model and has none of its versions, as one that is stopping says to the last"
    UNKNOWN_MODEL = "Triton does not have the model"
    FROM_A_STEP = "a step of the ensemble rejects what it was given; Triton's own checks of a request begin otherwise"
    RESTRICTED = "the API needs a header that was not sent"
    TOO_LARGE = "the message is larger than one side takes"
    NO_CONNECTION = "there was no connection, or it was lost"
    STREAM_RESET = "the other side, or a proxy on the way, gave the call up"


class Sentence(NamedTuple):
    """A row of the table.

    Attributes:
        pattern: Found anywhere in the message, by `re.search`.
        meaning: What it says.
        seen: In which version it was seen, of Triton or of gRPC's own library on this side.
    """

    pattern: str
    meaning: Meaning
    seen: str


SENTENCES = (
    # A process died; a message to or from it was lost; memory that it shares with Triton is used up.
    Sentence(r"Stub process .* not healthy", Meaning.MENDING, "Triton 2.51"),
    Sentence(r"Failed to copy the output tensor", Meaning.MENDING, "Triton 2.51"),
    Sentence(r"[Ff]ailed to increase the shared memory pool", Meaning.MENDING, "Triton 2.51"),
    Sentence(r"Server (is stopping|not ready)", Meaning.STOPPING, "Triton 2.51"),
    Sentence(r"has no available versions", Meaning.COMING, "Triton 2.51"),
    # Over HTTP alone, where some Tritons give 400 for it; gRPC's NOT_FOUND tells by itself.
    Sentence(r"unknown model", Meaning.UNKNOWN_MODEL, "Triton 2.51"),
    # INVALID_ARG (400) is a bad photo, and a request that the model does not take.
    Sentence(r"^(\[request id: [^\]]*\] )*in ensemble '", Meaning.FROM_A_STEP, "Triton 2.51"),
    # Over gRPC alone, with UNAVAILABLE; HTTP's 403 tells by itself.
    Sentence(r"is restricted, expecting header", Meaning.RESTRICTED, "Triton 2.51"),
    # RESOURCE_EXHAUSTED is also what proxies limit rates with.
    Sentence(r"larger than max", Meaning.TOO_LARGE, "grpcio 1.85"),
    # With INVALID_ARG (400), before any step.
    Sentence(r"--http-max-input-size", Meaning.TOO_LARGE, "Triton's main branch, read in its tests"),
    # UNAVAILABLE is what both a busy server and a connection that is none are called; these are said on this side.
    Sentence(
        r"(?i:\b(failed to connect|connections?|refused|reset|socket|endpoint|transport|goaway|keepalive|ping"
        r"|broken pipe|recvmsg|sendmsg|end of tcp|stream removed|resolving|resolution)\b)",
        Meaning.NO_CONNECTION,
        "grpcio 1.85",
    ),
    # INTERNAL and UNKNOWN are Triton's own failures, too.
    Sentence(r"RST_STREAM", Meaning.STREAM_RESET, "grpcio 1.85"),
)
_FOUND_BY = {
    meaning: re.compile("|".join(f"(?:{row.pattern})" for row in SENTENCES if row.meaning is meaning))
    for meaning in Meaning
}


def says(message: str, meaning: Meaning) -> bool:
    """Whether a message has a sentence of that meaning."""
    return _FOUND_BY[meaning].search(message) is not None
