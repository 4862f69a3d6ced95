"""Triton over gRPC, with tritonclient's generated stubs.

Uses grpcio's threaded channel and bridges it to asyncio. The single poller of `grpc.aio` does not survive a fork: the
first call of a forked child would never return.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.wrappers_pb2 import UInt32Value

from ..config import TLS, Endpoint
from ..errors import (
    CarAnalyzerError,
    DeadlineExceededError,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    ServerError,
)
from ..triton_messages import Cause, clean_message, has_cause
from .base import (
    CONNECT_S,
    Answer,
    ExportMismatchError,
    ModelConfig,
    invalid_argument,
    read_tensor,
    trace_context,
    unreachable,
)
from .replicas import Lookup
from .stubs import service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

# Tritons before 24.12 crash when a call to an ensemble is cancelled at the wrong moment
# (triton-inference-server/server#7840). So an abandoned call is never cancelled, but may complete: for LINGER_S after
# its timeout, and for CLOSE_GRACE_S after the client is closed.
LINGER_S = 10.0
CLOSE_GRACE_S = 3.0

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Detects a server that vanished without closing the connection, while calls wait on it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # By default gRPC sends everything to the first address of a name.
    ("grpc.lb_policy_name", "round_robin"),
    # Replicas come and go; by default a name is looked up every 30 s at most.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    # By default reconnecting waits up to two minutes; our own pauses between attempts spread the load.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1000)),
)

INFER = "/inference.GRPCInferenceService/ModelInfer"
# The tag of `raw_input_contents` in a serialised `ModelInferRequest`: field 7, of bytes.
RAW_INPUT_CONTENTS = b"\x3a"

# gRPC logs a message that is not valid text (see `clean_message`) with a traceback; the raised error is enough.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: not str(record.msg).startswith("Invalid encoding"))


class Channel:
    """A gRPC channel with its pending calls, which may complete after the channel was replaced."""

    def __init__(self, channel: Any) -> None:
        self.raw = channel
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # With requests that are serialised already.
        self.stub.ModelInfer = channel.unary_unary(
            INFER, response_deserializer=service_pb2.ModelInferResponse.FromString
        )
        self.pending: set[asyncio.Future[None]] = set()
        self._closing = False

    def remove(self, call: asyncio.Future[None]) -> None:
        """Remove a call that has completed."""
        self.pending.discard(call)
        if self._closing and not self.pending:
            self.raw.close()

    def close_when_idle(self) -> None:
        """Close the channel as soon as no call is pending."""
        self._closing = True
        if not self.pending:
            self.raw.close()


class GrpcTransport:
    """A gRPC channel; see `Transport`."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, headers: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        # A proxy from the environment cannot reach this machine's loopback.
        self._options = [*OPTIONS, ("grpc.enable_http_proxy", 0)] if endpoint.is_loopback else list(OPTIONS)
        self._credentials = grpc.ssl_channel_credentials(*(tls or TLS()).read()) if endpoint.is_secure else None
        self._lookup = Lookup(endpoint, self._reconnect)
        self._is_new = True
        self._channels = [self._open()]

    def _open(self) -> Channel:
        target = f"dns:///{self._endpoint.authority}"
        if self._credentials is not None:
            return Channel(grpc.secure_channel(target, self._credentials, self._options))
        return Channel(grpc.insecure_channel(target, self._options))

    def _reconnect(self, _addresses: frozenset[str]) -> None:
        """Open a channel for the addresses that the name has now.

        Channels share connections, so connections to addresses that remain are kept.
        """
        if self._is_new:  # it has just resolved the name itself
            self._is_new = False
            return
        self._channels[-1].close_when_idle()
        self._channels = [channel for channel in self._channels if channel.pending] + [self._open()]

    async def infer(
        self, model: str, photo: bytes, *, timeout: float, request_id: str, export_id: str | None, version: str = ""
    ) -> Answer:
        request = service_pb2.ModelInferRequest(model_name=model, model_version=version, id=request_id)
        tensor = request.inputs.add(name="image", datatype="BYTES")
        tensor.shape.extend([1, 1])
        request.parameters["timeout"].int64_param = max(1, int(timeout * 1e6))
        if export_id is not None:
            request.parameters["export_id"].string_param = export_id
        return await self._infer(model, add_photo(request, photo), timeout)

    async def infer_pixels(
        self, model: str, version: str, pixels: bytes, shape: tuple[int, ...], *, timeout: float
    ) -> Answer:
        request = service_pb2.ModelInferRequest(model_name=model, model_version=version)
        request.inputs.add(name="pixels", datatype="UINT8").shape.extend(shape)
        return await self._infer(model, add_raw(request, pixels), timeout)

    async def _infer(self, model: str, request: bytes, timeout: float) -> Answer:
        try:
            response = await self._call("ModelInfer", request, timeout, trace_context())
        except grpc.RpcError as error:
            details = error.details() or ""
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise invalid_argument(model, details) from error.with_traceback(None)
            if error.code() is grpc.StatusCode.NOT_FOUND and has_cause(details, Cause.OTHER_EXPORT):
                raise ExportMismatchError from error.with_traceback(None)
            raise self._translate(error) from error.with_traceback(None)
        outputs = {}
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
            if (tensor := read_tensor(output.datatype, output.shape, raw)) is not None:
                outputs[output.name] = tensor
        return Answer(response.model_version, outputs)

    async def model_config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        request = service_pb2.ModelConfigRequest(name=model, version=version)
        config = (await self._query("ModelConfig", request, timeout)).config
        parameters = {name: parameter.string_value for name, parameter in config.parameters.items()}
        versions = config.version_policy.specific.versions
        only = str(versions[0]) if len(versions) == 1 else None
        steps = tuple(step.model_name for step in config.ensemble_scheduling.step)
        return ModelConfig(parameters, only, steps, config.max_batch_size)

    async def is_server_ready(self, *, timeout: float) -> bool:
        return bool((await self._query("ServerReady", service_pb2.ServerReadyRequest(), timeout)).ready)

    async def is_model_ready(self, model: str, *, timeout: float) -> bool:
        request = service_pb2.ModelReadyRequest(name=model)
        try:
            return bool((await self._query("ModelReady", request, timeout)).ready)
        except ModelNotReadyError:
            return False

    async def close(self) -> None:
        self._lookup.close()
        pending = [call for channel in self._channels for call in channel.pending]
        if pending:
            await asyncio.wait(pending, timeout=CLOSE_GRACE_S)
        for channel in self._channels:
            channel.raw.close()

    async def _query(self, method: str, request: Any, timeout: float) -> Any:
        try:
            return await self._call(method, request, timeout)
        except grpc.RpcError as error:
            raise self._translate(error) from error.with_traceback(None)

    async def _call(
        self, method: str, request: Any, timeout: float, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Any:
        loop = asyncio.get_running_loop()
        self._lookup.refresh()
        completed, channel = loop.create_future(), self._channels[-1]
        call = getattr(channel.stub, method).future(
            request, timeout=timeout + LINGER_S, metadata=[*self._metadata, *headers.items()]
        )

        def finish() -> None:
            completed.set_result(None)
            channel.remove(completed)

        def post(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish)

        channel.pending.add(completed)
        call.add_done_callback(post)
        await asyncio.wait({completed}, timeout=timeout)
        if not completed.done():
            # To a call that timed out, a slow server and a missing one look the same.
            if await _is_connected(channel.raw):
                raise DeadlineExceededError(f"no answer from {self._endpoint} within {timeout:g} s")
            raise unreachable(self._endpoint, f"no connection within {timeout:g} s")
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise RuntimeError("this client was closed during the call") from None

    def _translate(self, error: Any) -> CarAnalyzerError:
        code, details = error.code(), clean_message(error.details() or "")
        if code is grpc.StatusCode.NOT_FOUND:
            return ModelNotReadyError(details)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceededError(f"no answer from {self._endpoint} in time")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            too_large = has_cause(details, Cause.TOO_LARGE)
            if too_large:
                return PhotoError(f"too large: {details}", code="photo.too_large")
            return OverloadedError(details)
        if has_cause(details, Cause.RESTRICTED):
            return ServerError(f"{details}: send it with headers=")
        if code is grpc.StatusCode.UNAVAILABLE:
            if has_cause(details, Cause.NO_CONNECTION):
                return unreachable(self._endpoint, _reason(details))
            return OverloadedError(details)
        # This client cancels no calls: the server, or a proxy, gave this one up as it ended.
        if code is grpc.StatusCode.CANCELLED:
            return unreachable(self._endpoint, "the server cancelled the call")
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and has_cause(details, Cause.STREAM_RESET):
            return unreachable(self._endpoint, details)
        return ServerError(f"{details} ({code.name})")


def add_photo(request: Any, photo: bytes) -> bytes:
    """Serialise a `ModelInferRequest` with a photo as its tensor of one string."""
    return add_raw(request, struct.pack("<I", len(photo)), photo)


def add_raw(request: Any, *parts: bytes) -> bytes:
    """Serialise a `ModelInferRequest` with the bytes of its tensor.

    Protobuf would copy a photo twice more. The fields of a message may follow each other in any order.
    """
    # A varint, after the one byte of its tag.
    size = UInt32Value(value=sum(map(len, parts))).SerializeToString()[1:]
    return b"".join((request.SerializeToString(), RAW_INPUT_CONTENTS, size, *parts))


async def _is_connected(channel: Any) -> bool:
    loop = asyncio.get_running_loop()
    connectivity: asyncio.Future[Any] = loop.create_future()

    def on_change(state: Any) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if connectivity.done() else connectivity.set_result(state))

    channel.subscribe(on_change)
    try:
        await asyncio.wait({connectivity}, timeout=1)
    finally:
        channel.unsubscribe(on_change)
    return connectivity.done() and connectivity.result() is grpc.ChannelConnectivity.READY


def _reason(details: str) -> str:
    reason = re.sub(r"^.*last error: (?:UNKNOWN|UNAVAILABLE): (?:ipv[46]:\S+ )?", "", details)
    return f"{reason} (if this is Triton's HTTP port, write http://)" if reason == "Socket closed" else reason
