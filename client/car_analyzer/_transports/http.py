"""Triton over HTTP: the inference protocol with its binary tensor extension.

tritonclient's own HTTP clients do not fit: one is not safe across threads, the other cannot distinguish a failed
connection from a late answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._version import __version__
from ..config import TLS, Endpoint
from ..errors import (
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    ServerError,
    UnreachableError,
)
from ..triton_messages import Cause, clean_message, has_cause
from .base import (
    CONNECT_S,
    Answer,
    ExportMismatchError,
    GatewayFoundError,
    ModelConfig,
    invalid_argument,
    read_tensor,
    trace_context,
    unreachable,
)
from .http_connection import Connection, NotHttpError, Response
from .replicas import RoundRobin
from .retry import Deadline, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER_LENGTH = "inference-header-content-length"
DEFAULT_PORTS = {"http": 80, "https": 443}
BUSY_STATUSES = {429, 502, 503, 504}
# The gateway's error code for paths that only Triton has; Triton's errors have no codes.
GATEWAY_NOT_FOUND = "request.not_found"
# Some proxies send this before they close an idle connection.
CLOSED_WHILE_IDLE = 408


class HttpTransport:
    """HTTP connections; see `Transport`. Created and used inside one event loop."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, headers: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._headers = {
            "host": _host(endpoint),
            "accept": "*/*",
            "accept-encoding": "identity",
            "user-agent": f"car-analyzer/{__version__}",
            **{name.lower(): value for name, value in headers.items()},
        }
        self._tls = (tls or TLS()).context() if endpoint.is_secure else None
        self._addresses = RoundRobin(endpoint, self._close_idle)
        self._connections: set[Connection] = set()
        # By address; None: whichever one the system resolves.
        self._idle: dict[str | None, list[Connection]] = {}

    async def infer(
        self, model: str, photo: bytes, *, timeout: float, request_id: str, export_id: str | None, version: str = ""
    ) -> Answer:
        header: dict[str, Any] = {"parameters": {"timeout": max(1, int(timeout * 1e6))}}
        if request_id:
            header["id"] = request_id
        if export_id is not None:
            header["parameters"]["export_id"] = export_id
        image = {"name": "image", "datatype": "BYTES", "shape": [1, 1]}
        return await self._infer(model, version, header, image, (struct.pack("<I", len(photo)), photo), timeout)

    async def infer_pixels(
        self, model: str, version: str, pixels: bytes, shape: tuple[int, ...], *, timeout: float
    ) -> Answer:
        tensor = {"name": "pixels", "datatype": "UINT8", "shape": shape}
        return await self._infer(model, version, {"parameters": {}}, tensor, (pixels,), timeout)

    async def _infer(
        self,
        model: str,
        version: str,
        header: dict[str, Any],
        tensor: dict[str, Any],
        parts: tuple[bytes, ...],
        timeout: float,
    ) -> Answer:
        size = sum(map(len, parts))
        header["inputs"] = [{**tensor, "parameters": {"binary_data_size": size}}]
        header["parameters"]["binary_data_output"] = True
        text = json.dumps(header).encode()
        body = b"".join((text, *parts))
        headers = {HEADER_LENGTH: str(len(text)), "content-type": "application/octet-stream", **trace_context()}
        status, answered, content = await self.call("POST", f"{_path(model, version)}/infer", timeout, body, headers)
        if status == 413:
            too_large = f"{self._endpoint} rejects a photo of {len(parts[-1]):,} bytes as too large"
            raise PhotoError(too_large, code="photo.too_large")
        message = _error_message(content) if status in (400, 404) else None
        if status == 404 and message is not None and has_cause(message, Cause.OTHER_EXPORT):
            raise ExportMismatchError
        if status == 400 and message is not None and not has_cause(message, Cause.UNKNOWN_MODEL):
            raise invalid_argument(model, message)
        if status != 200:
            raise self._translate(status, content)
        try:
            return _read_answer(content, int(answered[HEADER_LENGTH]))
        except (KeyError, ValueError, TypeError, struct.error) as error:
            raise ServerError(f"cannot read the answer of {self._endpoint}: {error!r}") from error

    async def model_config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        status, content = await self._get(f"{_path(model, version)}/config", timeout)
        if status != 200:
            raise self._translate(status, content)
        try:
            config = json.loads(content)
            steps = config.get("ensemble_scheduling", {}).get("step", [])
            parameters = {name: value.get("string_value", "") for name, value in config.get("parameters", {}).items()}
            versions = config.get("version_policy", {}).get("specific", {}).get("versions", [])
            only = str(versions[0]) if len(versions) == 1 else None
            names = tuple(step["model_name"] for step in steps)
            return ModelConfig(parameters, only, names, int(config.get("max_batch_size", 0)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServerError(f"cannot read the model's config from {self._endpoint}: {error!r}") from error

    async def is_server_ready(self, *, timeout: float) -> bool:
        status, _ = await self._get("/v2/health/ready", timeout)
        return status == 200

    async def is_model_ready(self, model: str, *, timeout: float) -> bool:
        status, _ = await self._get(f"/v2/models/{quote(model)}/ready", timeout)
        return status == 200

    async def close(self) -> None:
        self._addresses.close()
        self._idle.clear()
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.wait_closed() for connection in connections), return_exceptions=True)

    async def _get(self, path: str, timeout: float) -> tuple[int, bytes]:
        status, _, content = await self.call("GET", path, timeout)
        if status == 404 and _is_gateways(content):
            raise GatewayFoundError(self)
        return status, content

    async def call(
        self,
        method: str,
        path: str,
        timeout: float,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Response:
        """Send a request to one of the addresses, and read the response whatever its status is.

        Raises:
            UnreachableError: There is no connection, or it was lost.
            DeadlineExceededError: There was no answer within the timeout.
            ConfigurationError: The host is not a valid name.
        """
        deadline = Deadline(timeout)
        target, fields = quote(self._endpoint.path, safe="/%:@!$&'()*+,;=~") + path, {**self._headers, **headers}
        tried: set[str | None] = {None}
        while True:
            address = self._addresses.next()
            try:
                connection = await self._connect(address, max(deadline.left, 0.001))
            except UnreachableError:
                # Nothing was sent, so another address may take the call.
                self._mark_down(address)
                if address in tried or not deadline.left:
                    raise
                tried.add(address)
                continue
            is_reused = connection.is_reused
            try:
                response = await wait_for(max(deadline.left, 0.001), connection.send(method, target, fields, body))
            except asyncio.TimeoutError as error:
                raise DeadlineExceededError(f"no answer from {self._endpoint} within {timeout:g} s") from error
            except (OSError, EOFError, NotHttpError) as error:
                if not is_reused:
                    self._mark_down(address)
                    raise self._lost(error) from error.with_traceback(None)
            else:
                if not (is_reused and response.status == CLOSED_WHILE_IDLE):
                    return response
            finally:
                self._release(connection, address)

    async def _connect(self, address: str | None, timeout: float) -> Connection:
        idle = self._idle.setdefault(address, [])
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
            self._discard(connection)
        # Connecting gets slightly less than the whole time, so that its timeout is reported as such.
        limit = min(CONNECT_S, timeout * 0.9)
        try:
            return await wait_for(limit, self._open(address or self._endpoint.host))
        except asyncio.TimeoutError as error:
            raise unreachable(self._endpoint, f"no connection within {min(CONNECT_S, timeout):g} s") from error
        except UnicodeError as error:
            raise ConfigurationError(f"{self._endpoint} is not a valid URL: {error}") from error
        except OSError as error:
            raise unreachable(self._endpoint, _reason(error)) from error.with_traceback(None)

    async def _open(self, address: str) -> Connection:
        connection = await Connection.open(address, self._endpoint.port, self._tls, self._endpoint.host)
        self._connections.add(connection)
        return connection

    def _release(self, connection: Connection, address: str | None) -> None:
        if connection.is_open and address in self._idle:
            self._idle[address].append(connection)
        else:
            self._discard(connection)

    def _discard(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.abort()

    def _close_idle(self, address: str) -> None:
        for connection in self._idle.pop(address, []):
            self._discard(connection)

    def _mark_down(self, address: str | None) -> None:
        if address is not None:
            self._addresses.mark_down(address)

    def _lost(self, error: Exception) -> UnreachableError:
        if isinstance(error, NotHttpError):
            return unreachable(self._endpoint, "this is not HTTP (if this is Triton's gRPC port, write grpc://)")
        if isinstance(error, EOFError):
            return unreachable(self._endpoint, "it closed the connection before its answer was complete")
        return unreachable(self._endpoint, str(error) or type(error).__name__)

    def _translate(self, status: int, content: bytes) -> CarAnalyzerError:
        message = _error_message(content)
        if status in BUSY_STATUSES:
            return OverloadedError(clean_message(message or f"{self._endpoint} answered with status {status}"))
        if message is None:
            return ServerError(f"{self._endpoint} answered with status {status} and without Triton's error message")
        if status in (400, 404) and has_cause(message, Cause.UNKNOWN_MODEL):
            return ModelNotReadyError(clean_message(message))
        if status in (401, 403):
            return ServerError(f"{clean_message(message)}: send it with headers=")
        return ServerError(f"{clean_message(message)} (status {status})")


def _path(model: str, version: str) -> str:
    return f"/v2/models/{quote(model)}" + (f"/versions/{quote(version)}" if version else "")


def _host(endpoint: Endpoint) -> str:
    """The `Host` header."""
    authority = endpoint.authority.removesuffix(f":{DEFAULT_PORTS[endpoint.scheme]}")
    try:
        return authority if authority.isascii() else authority.encode("idna").decode()
    except UnicodeError as error:
        raise ConfigurationError(f"{endpoint} is not a valid URL: {error}") from error


def _reason(error: OSError) -> str:
    # asyncio's message hides the system's. Errors of name resolution and of TLS have numbers of their own.
    is_numbered = type(error) in (OSError, ConnectionRefusedError, ConnectionResetError, TimeoutError)
    if is_numbered and error.errno:
        return os.strerror(error.errno)
    # One error for all addresses of a name.
    numbers = set(re.findall(r"\[Errno (\d+)\]", str(error)))
    return os.strerror(int(numbers.pop())) if len(numbers) == 1 else str(error.strerror or error)


def _error_message(content: bytes) -> str | None:
    """Triton's error message, or None if this is not an error of Triton's."""
    try:
        return str(json.loads(content)["error"])
    except (KeyError, TypeError, ValueError):
        return None


def _is_gateways(content: bytes) -> bool:
    """Whether an error for an unknown path is the gateway's."""
    try:
        return bool(json.loads(content)["code"] == GATEWAY_NOT_FOUND)
    except (KeyError, TypeError, ValueError):
        return False


def _read_answer(content: bytes, header_length: int) -> Answer:
    header = json.loads(content[:header_length])
    outputs, start = {}, header_length
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        tensor = read_tensor(output["datatype"], output["shape"], content[start : start + size])
        if tensor is not None:
            outputs[output["name"]] = tensor
        start += size
    return Answer(header["model_version"], outputs)
