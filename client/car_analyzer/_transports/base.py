"""What the client needs from a protocol, and what the two protocols share."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import CarAnalyzerError, ConfigurationError, PhotoError, ServerError, UnreachableError
from ..heads import Tensor
from ..triton_messages import Cause, clean_message, has_cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..config import Endpoint
    from .http import HttpTransport

# How long opening a connection may take. A server that has not answered by then is down or behind a firewall.
CONNECT_S = 5.0
PHOTO_CODES = {
    Cause.TOO_LARGE: "photo.too_large",
    Cause.PHOTO_TOO_LARGE: "photo.too_large",
    Cause.PHOTO_EMPTY: "photo.empty",
}


@dataclass(frozen=True)
class Answer:
    """A model's outputs, and the version that computed them: an ensemble's are the logits of one photo."""

    model_version: str
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class ModelConfig:
    """The parts of a model's config that the client uses.

    Attributes:
        parameters: What the export wrote into it: `heads`, the JSON that describes its outputs; `export_id` and
            `explain`, but not of older exports; `description` and `demo`, where the spec has them; `drift`, where it
            was checked on photos.
        version: The only version that it allows, or None.
        steps: The models that the ensemble consists of.
        max_batch_size: The largest batch that the model takes.
    """

    parameters: Mapping[str, str]
    version: str | None
    steps: tuple[str, ...]
    max_batch_size: int


class ExportMismatchError(Exception):
    """The server has another export than the one requested; see `Transport.infer`."""


class GatewayFoundError(Exception):
    """The server is not a Triton, but the project's gateway.

    Attributes:
        transport: The connections to it.
    """

    def __init__(self, transport: HttpTransport) -> None:
        super().__init__()
        self.transport = transport


class Transport(Protocol):
    """A connection to one Triton.

    Every method ends within its `timeout` in seconds, or slightly later, and raises only `CarAnalyzerError`s:
    `UnreachableError` without a connection, `DeadlineExceededError` with a connection but without an answer. But if the
    server is a gateway, `model_config`, `is_server_ready` and `is_model_ready` raise `GatewayFoundError`.
    """

    async def infer(
        self, model: str, photo: bytes, *, timeout: float, request_id: str, export_id: str | None, version: str = ""
    ) -> Answer:
        """Have one photo analysed.

        Args:
            model: The ensemble's name.
            photo: An image file.
            timeout: In seconds.
            request_id: Appears in Triton's logs and traces.
            export_id: The only export that may answer; None: any.
            version: The only version that may answer; empty: the newest that is loaded.

        Raises:
            ExportMismatchError: The server has another export. It did not look at the photo.
        """

    async def infer_pixels(
        self, model: str, version: str, pixels: bytes, shape: tuple[int, ...], *, timeout: float
    ) -> Answer:
        """Have one network compute its outputs for a batch of prepared pixels.

        Args:
            model: The network's name.
            version: The only version that may answer; empty: the newest.
            pixels: uint8, RGB.
            shape: Their shape [batch, height, width, 3].
            timeout: In seconds.
        """

    async def model_config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        """Read the config of one version; an empty version means the newest."""

    async def is_server_ready(self, *, timeout: float) -> bool:
        """Whether the server is ready."""

    async def is_model_ready(self, model: str, *, timeout: float) -> bool:
        """Whether a model is loaded."""

    async def close(self) -> None:
        """Close the connection."""


def invalid_argument(model: str, message: str) -> CarAnalyzerError:
    """The error for INVALID_ARG: a bad photo if a step rejected it or it is too large, else an unsuitable model."""
    if has_cause(message, Cause.STEP_REJECTED) or has_cause(message, Cause.TOO_LARGE):
        code = next((code for cause, code in PHOTO_CODES.items() if has_cause(message, cause)), None)
        return PhotoError(clean_message(message), code=code)
    text = f"the model {model!r} does not take photos: {clean_message(message)}"
    return ConfigurationError(text, code="model.unsuitable")


def unreachable(endpoint: Endpoint, reason: str) -> UnreachableError:
    """The error for a server that does not answer."""
    return UnreachableError(f"no server answers at {endpoint}: {reason}")


def read_tensor(datatype: str, shape: Iterable[int], data: bytes) -> Tensor | None:
    """A tensor in Triton's binary format: FP32 or UINT8; None for other types, which the client does not use."""
    if datatype == "UINT8":
        return Tensor(tuple(shape), data)
    return Tensor(tuple(shape), read_floats(data)) if datatype == "FP32" else None


def read_floats(data: bytes) -> tuple[float, ...]:
    """The values of an FP32 tensor in Triton's binary format."""
    if len(data) % 4:
        raise ServerError(f"a tensor of {len(data)} bytes is not FP32")
    return struct.unpack(f"<{len(data) // 4}f", data)


def trace_context() -> dict[str, str]:
    """Headers that connect a request to the caller's trace, if the program uses OpenTelemetry."""
    # A program that uses it has imported it.
    propagate = sys.modules.get("opentelemetry.propagate")
    headers: dict[str, str] = {}
    if propagate is not None:
        propagate.inject(headers)
    return headers
