"""A client for Triton's own protocols that sends requests as they are, and distinguishes rejections from failures."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Protocol

import grpc  # type: ignore[import-untyped]
import httpx
import numpy as np
from tritonclient.grpc import service_pb2

PROTOCOLS = ("grpc", "http")
# Long: only hangs are failures, not slowness.
TIMEOUT_S = 60
_REJECTED = ("INVALID_ARGUMENT", "400")


class Running(Protocol):
    """A running Triton."""

    @property
    def pid(self) -> int:
        """The process id of Triton itself."""

    @property
    def grpc_url(self) -> str:
        """The URL for gRPC."""

    @property
    def http_url(self) -> str:
        """The URL for HTTP."""


class UnexpectedAnswerError(Exception):
    """The answer to a photo was neither logits nor a rejection."""


def as_string(content: bytes, length: int | None = None) -> bytes:
    """A string as Triton wants it: its length first, which may be another one."""
    return struct.pack("<I", len(content) if length is None else length) + content


@dataclass(frozen=True)
class InferRequest:
    """A request for inference with one input, correct or not."""

    data: bytes
    model: str = "car_analyzer"
    version: str = ""
    name: str = "image"
    datatype: str = "BYTES"
    shape: tuple[int, ...] = (1, 1)
    output: str | None = None

    def to_grpc(self) -> bytes:
        """The message to ModelInfer."""
        request = service_pb2.ModelInferRequest(model_name=self.model, model_version=self.version)
        request.inputs.add(name=self.name, datatype=self.datatype, shape=self.shape)
        request.raw_input_contents.append(self.data)
        if self.output is not None:
            request.outputs.add(name=self.output)
        return bytes(request.SerializeToString())

    def to_http(self) -> tuple[str, bytes, dict[str, str]]:
        """Path, body and headers of a POST request."""
        parameters = {"binary_data_size": len(self.data)}
        tensor = {"name": self.name, "datatype": self.datatype, "shape": self.shape, "parameters": parameters}
        outputs = {} if self.output is None else {"outputs": [{"name": self.output}]}
        text = json.dumps({"inputs": [tensor], **outputs}).encode()
        version = f"/versions/{self.version}" if self.version else ""
        headers = {"Inference-Header-Content-Length": str(len(text))}
        return f"/v2/models/{self.model}{version}/infer", text + self.data, headers


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: The HTTP status, or the name of the gRPC status.
        message: With an error.
        logits: By head, one row for each photo.
    """

    status: str
    message: str = ""
    logits: dict[str, Any] | None = None


class TritonClient:
    """A client of one server, for any thread. A context manager."""

    def __init__(self, server: Running) -> None:
        self._http = httpx.Client(base_url=server.http_url, timeout=TIMEOUT_S)
        options = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(server.grpc_url.partition("://")[2], options=options)

    def __enter__(self) -> TritonClient:
        return self

    def __exit__(self, *_: object) -> None:
        # Triton waits for open connections when it stops.
        self._http.close()
        self._channel.close()

    def infer(self, protocol: str, *photos: bytes) -> list[dict[str, list[float]]] | str:
        """Sends photos as one request.

        Returns:
            The logits of each, or the message with which the request was rejected.

        Raises:
            UnexpectedAnswerError: The server answered anything else.
        """
        request = InferRequest(b"".join(map(as_string, photos)), shape=(len(photos), 1))
        try:
            reply = self.send(protocol, request)
        except httpx.HTTPError as error:
            raise UnexpectedAnswerError(f"http: {type(error).__name__}: {error}") from error
        if reply.logits is not None:
            logits = reply.logits
            return [{head: list(rows[number]) for head, rows in logits.items()} for number in range(len(photos))]
        if reply.status not in _REJECTED:
            raise UnexpectedAnswerError(f"{protocol} {reply.status}: {reply.message}")
        if not reply.message.strip().endswith("."):
            raise UnexpectedAnswerError(f"{protocol}: rejected, but not in a sentence: {reply.message}")
        return reply.message

    def send(self, protocol: str, request: InferRequest) -> Reply:
        """Sends a request over `grpc` or `http`."""
        return self.call("ModelInfer", request.to_grpc()) if protocol == "grpc" else self.post(*request.to_http())

    def post(self, path: str, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Reply:
        """Sends a POST request."""
        answer = self._http.post(path, content=body, headers=headers)
        if not answer.is_success:
            return Reply(str(answer.status_code), answer.json().get("error", "") if answer.content else "")
        rows = {output["name"]: np.reshape(output["data"], output["shape"]) for output in answer.json()["outputs"]}
        return Reply("200", logits=_by_head(rows))

    def call(self, method: str, message: bytes = b"") -> Reply:
        """Sends bytes to a gRPC method."""
        try:
            answer = self._channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(message, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return Reply(error.code().name, str(error.details()))
        response = service_pb2.ModelInferResponse.FromString(answer)
        tensors = zip(response.outputs, response.raw_output_contents, strict=True)
        rows = {tensor.name: np.frombuffer(raw, np.float32).reshape(tensor.shape) for tensor, raw in tensors}
        return Reply("OK", logits=_by_head(rows))


def _by_head(rows: dict[str, Any]) -> dict[str, Any]:
    return {name.removesuffix("_logits"): values for name, values in rows.items()}
