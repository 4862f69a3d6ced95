"""Callers, each as cheap as its protocol allows: what is measured is the service, not the load.

Each is made of one photo's request, built beforehand, and a connection of its own.
"""

from __future__ import annotations

import http.client
import json
import struct
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2, service_pb2_grpc

from car_analyzer import CarAnalyzer

if TYPE_CHECKING:
    from collections.abc import Callable

_BOUNDARY = "benchmark"
_MODEL = "car_analyzer"


class Client(Protocol):
    """Asks about one photo at a time."""

    def ask(self, number: int) -> None:
        """Asks about photo `number` and waits for the answer.

        Raises:
            Exception: There is none, or it is an error.
        """


class Upload:
    """A form with the photo in the field `image`, posted to a URL."""

    def __init__(self, url: str, photos: list[bytes]) -> None:
        self._parts = urlsplit(url)
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        self._bodies = [head.encode() + photo + f"\r\n--{_BOUNDARY}--\r\n".encode() for photo in photos]
        self._headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        self._connection = http.client.HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=120)

    def ask(self, number: int) -> None:
        _post(self._connection, self._parts.path, self._bodies[number], self._headers)


class TritonHttp:
    """Triton's binary HTTP extension."""

    def __init__(self, url: str, photos: list[bytes]) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        self._requests = [self._request(photo) for photo in photos]

    def ask(self, number: int) -> None:
        _post(self._connection, f"/v2/models/{_MODEL}/infer", *self._requests[number])

    @staticmethod
    def _request(photo: bytes) -> tuple[bytes, dict[str, str]]:
        size = {"binary_data_size": len(photo) + 4}
        header = json.dumps(
            {
                "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": size}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        return header + struct.pack("<I", len(photo)) + photo, {"Inference-Header-Content-Length": str(len(header))}


class TritonGrpc:
    """Triton's gRPC service."""

    def __init__(self, url: str, photos: list[bytes]) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(urlsplit(url).netloc, options)
        self._infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        self._requests = [self._request(photo) for photo in photos]

    def ask(self, number: int) -> None:
        self._infer(self._requests[number], timeout=120)

    @staticmethod
    def _request(photo: bytes) -> Any:
        request = service_pb2.ModelInferRequest(model_name=_MODEL)
        request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(photo)) + photo)
        return request


class Sdk:
    """The Python SDK, with everything it does for its callers."""

    def __init__(self, url: str, photos: list[bytes]) -> None:
        self._photos = photos
        self._analyzer = CarAnalyzer(url, timeout=120)

    def ask(self, number: int) -> None:
        self._analyzer.analyze(self._photos[number])


CLIENTS: dict[str, Callable[[str, list[bytes]], Client]] = {
    "upload": Upload,
    "http": TritonHttp,
    "grpc": TritonGrpc,
    "sdk": Sdk,
}


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> None:
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        raise
    if response.status != 200:
        raise RuntimeError(f"{response.status} {content[:300]!r}")
