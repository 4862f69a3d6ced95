"""The protocols, gRPC and HTTP, one module each, imported when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from .base import Answer, ExportMismatchError, GatewayFoundError, Transport
from .retry import Deadline, retry_call, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import TLS, Endpoint

__all__ = [
    "Answer",
    "Deadline",
    "ExportMismatchError",
    "GatewayFoundError",
    "Transport",
    "open_transport",
    "retry_call",
    "wait_for",
]


def open_transport(endpoint: Endpoint, tls: TLS | None, headers: Mapping[str, str]) -> Transport:
    """Create the transport for the endpoint's scheme. It connects when it is first used.

    Raises:
        ConfigurationError: A TLS file cannot be used, or a library is missing.
    """
    try:
        if endpoint.is_grpc:
            from .grpc import GrpcTransport

            return GrpcTransport(endpoint, tls, headers)
        from .http import HttpTransport

        return HttpTransport(endpoint, tls, headers)
    except ImportError as error:
        raise ConfigurationError(f"{endpoint.scheme}:// needs a library that is missing: {error}") from error
