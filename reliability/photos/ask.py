"""Sends photos to a Triton by HTTP and by gRPC with NVIDIA's own clients, and tells refusals from failures."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from reliability.known import HEADS

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOLS = ("grpc", "http")
# Hangs are to be found, not slowness.
TIMEOUT_S = 60
_REFUSED = ("StatusCode.INVALID_ARGUMENT", "400")


class Running(Protocol):
    """A running Triton."""

    @property
    def pid(self) -> int:
        """Of Triton itself."""

    @property
    def grpc_url(self) -> str:
        """Where gRPC is."""

    @property
    def http_url(self) -> str:
        """Where HTTP is."""


class BrokenError(Exception):
    """The answer to a photo was neither logits nor a refusal."""


class Asker:
    """Asks one server, from any thread. A context manager."""

    def __init__(self, server: Running) -> None:
        self._clients: list[Any] = []
        self._addresses = {name: getattr(server, f"{name}_url").partition("://")[2] for name in PROTOCOLS}
        self._own = threading.local()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        # Triton waits for connections that are left open when it is told to stop.
        for client in self._clients:
            client.close()
        self._clients.clear()

    def ask(self, protocol: str, *photos: bytes) -> list[dict[str, list[float]]] | str:
        """Sends photos as one request.

        Returns:
            The logits of each, or the sentence with which the request was refused.

        Raises:
            BrokenError: Anything else came.
        """
        library: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
        image = library.InferInput("image", [len(photos), 1], "BYTES")
        image.set_data_from_numpy(np.array([[photo] for photo in photos], dtype=object))
        try:
            if protocol == "grpc":
                answer = self._client(protocol).infer("car_analyzer", [image], client_timeout=TIMEOUT_S)
            else:
                answer = self._client(protocol).infer("car_analyzer", [image])
        except InferenceServerException as error:
            message = str(error.message())
            if error.status() not in _REFUSED:
                raise BrokenError(f"{protocol} {error.status()}: {message}") from error
            if not message.strip().endswith("."):
                raise BrokenError(f"{protocol}: refused, but not in a sentence: {message}") from error
            return message
        except Exception as error:
            raise BrokenError(f"{protocol}: {type(error).__name__}: {error}") from error
        rows: dict[str, Sequence[Any]] = {head: answer.as_numpy(f"{head}_logits") for head in HEADS}
        return [{head: rows[head][number].tolist() for head in HEADS} for number in range(len(photos))]

    def _client(self, protocol: str) -> Any:
        # The HTTP client is not safe across threads.
        client = getattr(self._own, protocol, None)
        if client is None:
            address = self._addresses[protocol]
            client = (
                tritonclient.grpc.InferenceServerClient(address)
                if protocol == "grpc"
                else tritonclient.http.InferenceServerClient(address, network_timeout=TIMEOUT_S)
            )
            setattr(self._own, protocol, client)
            self._clients.append(client)
        return client
