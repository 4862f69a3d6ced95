"""What the client needs of a protocol, and what the two have in common."""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import (
    CarAnalyzerError,
    ConfigurationError,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    ServerError,
    UnreachableError,
)
from ..triton_messages import Meaning, says

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import Endpoint
    from ..heads import Tensor

# For how long opening a connection may take. Who has not answered by then is down or behind a firewall.
CONNECT_S = 5.0

# A Triton that stops can send a message out of memory that it has freed.
_FREED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Answer:
    """One photo's logits, and which version of the ensemble gave them."""

    model_version: str
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class ModelConfig:
    """The parts of a model's config that a client cares for.

    Attributes:
        heads: The JSON that describes its outputs, or None.
        export_id: Which export it is of, or None for an older one, which has no id.
        version: The only version that it allows, or None.
        steps: The models an ensemble is made of.
    """

    heads: str | None
    export_id: str | None
    version: str | None
    steps: tuple[str, ...]


class ExportMismatchError(Exception):
    """The server has another export than the request asks for; see `Transport.infer`."""


class Transport(Protocol):
    """A connection to one Triton.

    Every method ends within its `timeout` in seconds, or little later, and raises nothing but `CarAnalyzerError`s:
    `UnreachableError` when there was no connection, `DeadlineExceededError` when there was one and no answer.
    """

    async def infer(
        self, model: str, photo: bytes, *, timeout: float, request_id: str, export_id: str | None
    ) -> Answer:
        """Have one photo analysed.

        Args:
            model: The ensemble's name.
            photo: An image file.
            timeout: In seconds.
            request_id: Goes with the request into Triton's logs and traces.
            export_id: The only export that may answer; None: any.

        Raises:
            ExportMismatchError: The server has another export. It did not look at the photo.
        """

    async def model_config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        """Read the config of one version; an empty version means the newest."""

    async def is_server_ready(self, *, timeout: float) -> bool:
        """Ask whether the server is ready."""

    async def is_model_ready(self, model: str, *, timeout: float) -> bool:
        """Ask whether a model is loaded."""

    async def close(self) -> None:
        """Let go of the connection."""


def rejected(model: str, message: str) -> CarAnalyzerError:
    """The error for INVALID_ARG: the photo is at fault where a step says so or its size is, else the whole request."""
    if says(message, Meaning.FROM_A_STEP) or says(message, Meaning.TOO_LARGE):
        return PhotoError(plain(message))
    return ConfigurationError(f"the model {model!r} does not take photos: {plain(message)}")


def names_export(message: str | None, export_id: str | None) -> bool:
    """Whether NOT_FOUND is about the export that was asked for, and not about a model."""
    return export_id is not None and message is not None and f"Export {export_id} is not served here" in message


def read_floats(data: bytes) -> tuple[float, ...]:
    """The numbers of a tensor of FP32, as Triton sends it."""
    if len(data) % 4:
        raise ServerError(f"a tensor of {len(data)} bytes is not FP32")
    return struct.unpack(f"<{len(data) // 4}f", data)


def plain(message: str) -> str:
    """A message of Triton's without its note on the way it took, which means nothing to a caller."""
    message = re.sub(r"^(in ensemble '[^']*', |\[request id: [^\]]*\] )*", "", message.strip())
    return message if message and not _FREED.search(message) else "the server gave no reason"


def trace_context() -> dict[str, str]:
    """Headers that tie a request to the caller's trace, where the program uses OpenTelemetry."""
    # A program that uses it has imported it.
    propagate = sys.modules.get("opentelemetry.propagate")
    headers: dict[str, str] = {}
    if propagate is not None:
        propagate.inject(headers)
    return headers


def unreachable(endpoint: Endpoint, reason: str) -> UnreachableError:
    """The error for when nobody answers."""
    return UnreachableError(f"no Triton answers at {endpoint}: {reason}")


def is_mending(error: CarAnalyzerError) -> bool:
    """Whether Triton says that it failed to speak with a process of its own, which passes and is no photo's fault."""
    return isinstance(error, ServerError) and says(str(error), Meaning.MENDING)


def is_stopping(error: CarAnalyzerError) -> bool:
    """Whether it comes from a Triton that was told to stop. Of several behind one name, another one takes the call."""
    return isinstance(error, OverloadedError) and says(str(error), Meaning.STOPPING)


def is_coming(error: CarAnalyzerError) -> bool:
    """Whether Triton knows the model and has none of its versions, as one that is stopping says to the last."""
    return isinstance(error, ModelNotReadyError) and says(str(error), Meaning.COMING)
