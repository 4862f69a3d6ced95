"""Triton over HTTP: the inference protocol with its binary tensor extension, on aiohttp.

tritonclient's own HTTP clients do not fit: one is not safe across threads, the other cannot distinguish a failed
connection from a late answer.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import aiohttp.abc

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
from ..heads import Tensor
from ..triton_messages import Cause, clean_message, has_cause
from .base import (
    CONNECT_S,
    Answer,
    ExportMismatchError,
    ModelConfig,
    invalid_argument,
    read_floats,
    trace_context,
    unreachable,
)
from .replicas import RoundRobin
from .retry import Deadline

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER_LENGTH = "Inference-Header-Content-Length"
BUSY_STATUSES = {429, 502, 503, 504}


@dataclass
class Pool:
    """Connections to one address, or to whichever address the system resolves."""

    session: aiohttp.ClientSession
    calls: int = 0
    closing: bool = False


class PinnedResolver(aiohttp.abc.AbstractResolver):
    """Resolves every name to one address, so that URL, certificate check and error messages still use the name."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        numeric = socket.AI_NUMERICHOST
        return [{"hostname": host, "host": self._address, "port": port, "family": family, "proto": 0, "flags": numeric}]

    async def close(self) -> None:
        """Nothing to close."""


class HttpTransport:
    """Pools of HTTP connections; see `Transport`. Created and used inside one event loop."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, headers: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._headers = headers
        self._ssl = (tls or TLS()).context() if endpoint.is_secure else True
        self._addresses = RoundRobin(endpoint, self._close_when_idle)
        self._pools: dict[str | None, Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def infer(
        self, model: str, photo: bytes, *, timeout: float, request_id: str, export_id: str | None
    ) -> Answer:
        length = len(photo) + 4
        header: dict[str, Any] = {
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": length}}
            ],
            "parameters": {"binary_data_output": True, "timeout": max(1, int(timeout * 1e6))},
        }
        if request_id:
            header["id"] = request_id
        if export_id is not None:
            header["parameters"]["export_id"] = export_id
        text = json.dumps(header).encode()
        body = b"".join((text, struct.pack("<I", len(photo)), photo))
        headers = {HEADER_LENGTH: str(len(text)), "Content-Type": "application/octet-stream", **trace_context()}
        path = f"/v2/models/{quote(model)}/infer"
        status, answered, content = await self._call("POST", path, timeout, body, headers)
        if status == 413:
            raise PhotoError(f"{self._endpoint} rejects a photo of {len(photo):,} bytes as too large")
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
        path = f"/v2/models/{quote(model)}" + (f"/versions/{quote(version)}" if version else "") + "/config"
        status, _, content = await self._call("GET", path, timeout)
        if status != 200:
            raise self._translate(status, content)
        try:
            config = json.loads(content)
            steps = config.get("ensemble_scheduling", {}).get("step", [])
            parameters = config.get("parameters", {})
            heads, export_id = (parameters.get(name, {}).get("string_value") for name in ("heads", "export_id"))
            versions = config.get("version_policy", {}).get("specific", {}).get("versions", [])
            only = str(versions[0]) if len(versions) == 1 else None
            return ModelConfig(heads, export_id, only, tuple(step["model_name"] for step in steps))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServerError(f"cannot read the model's config from {self._endpoint}: {error!r}") from error

    async def is_server_ready(self, *, timeout: float) -> bool:
        status, _, _ = await self._call("GET", "/v2/health/ready", timeout)
        return status == 200

    async def is_model_ready(self, model: str, *, timeout: float) -> bool:
        status, _, _ = await self._call("GET", f"/v2/models/{quote(model)}/ready", timeout)
        return status == 200

    async def close(self) -> None:
        self._addresses.close()
        await asyncio.gather(*(pool.session.close() for pool in self._pools.values()))

    async def _call(
        self,
        method: str,
        path: str,
        timeout: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        deadline = Deadline(timeout)
        tried: set[str | None] = {None}
        while True:
            address = self._addresses.next()
            try:
                return await self._send(address, method, path, max(deadline.left, 0.001), body, headers)
            except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
                # Nothing was sent, so another address may take the call.
                self._mark_down(address)
                if address in tried or not deadline.left:
                    if isinstance(error, aiohttp.ConnectionTimeoutError):
                        reason = f"no connection within {min(CONNECT_S, timeout):g} s"
                        raise unreachable(self._endpoint, reason) from error
                    raise self._exclean_message(error) from error.with_traceback(None)
                tried.add(address)
            except asyncio.TimeoutError as error:
                raise DeadlineExceededError(f"no answer from {self._endpoint} within {timeout:g} s") from error
            except aiohttp.InvalidURL as error:
                raise ConfigurationError(f"{self._endpoint} is not a valid URL: {error}") from error
            except (aiohttp.ClientError, OSError) as error:
                self._mark_down(address)
                raise self._exclean_message(error) from error.with_traceback(None)

    async def _send(
        self,
        address: str | None,
        method: str,
        path: str,
        timeout: float,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        # Connecting gets slightly less than the whole time, so that its timeout is reported as such.
        # Above the threshold, aiohttp would round timeouts up to whole seconds.
        limits = aiohttp.ClientTimeout(total=timeout, connect=min(CONNECT_S, timeout * 0.9), ceil_threshold=math.inf)
        # As a file: aiohttp warns about large bodies that are bytes.
        data = None if body is None else io.BytesIO(body)
        pool = self._pool(address)
        pool.calls += 1
        try:
            async with pool.session.request(
                method, f"{self._endpoint}{path}", data=data, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                return response.status, response.headers, await response.read()
        finally:
            pool.calls -= 1
            if pool.closing and not pool.calls:
                await pool.session.close()

    def _pool(self, address: str | None) -> Pool:
        if address not in self._pools:
            resolver = None if address is None else PinnedResolver(address)
            # limit=0: the caller limits how many calls run at once.
            connector = aiohttp.TCPConnector(ssl=self._ssl, limit=0, resolver=resolver)
            self._pools[address] = Pool(aiohttp.ClientSession(connector=connector, headers=self._headers))
        return self._pools[address]

    def _mark_down(self, address: str | None) -> None:
        if address is not None:
            self._addresses.mark_down(address)

    def _close_when_idle(self, address: str) -> None:
        pool = self._pools.pop(address, None)
        if pool is not None:
            pool.closing = True
            if not pool.calls:
                task = asyncio.create_task(pool.session.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    def _exclean_message(self, error: Exception) -> UnreachableError:
        if isinstance(error, aiohttp.ClientResponseError):
            return unreachable(self._endpoint, "this is not HTTP (if this is Triton's gRPC port, write grpc://)")
        if isinstance(error, aiohttp.ClientConnectorError):
            return unreachable(self._endpoint, _reason(error.os_error))
        return unreachable(self._endpoint, str(error) or type(error).__name__)

    def _translate(self, status: int, content: bytes) -> CarAnalyzerError:
        message = _error_message(content)
        if status in BUSY_STATUSES:
            return OverloadedError(clean_message(message or f"{self._endpoint} answered with status {status}"))
        if message is None:
            return ServerError(f"{self._endpoint} answered with status {status} and without Triton's error message")
        if status in (400, 404) and has_cause(message, Cause.UNKNOWN_MODEL):
            return ModelNotReadyError(clean_message(message))
        if status == 403:
            return ServerError(f"{clean_message(message)}: send it with headers=")
        return ServerError(f"{clean_message(message)} (status {status})")


def _reason(error: OSError) -> str:
    # aiohttp's message hides the system's. Errors of name resolution and of TLS have numbers of their own.
    is_numbered = type(error) in (OSError, ConnectionRefusedError, ConnectionResetError, TimeoutError)
    return os.strerror(error.errno) if is_numbered and error.errno else str(error.strerror or error)


def _error_message(content: bytes) -> str | None:
    """Triton's error message, or None if this is not an error of Triton's."""
    try:
        return str(json.loads(content)["error"])
    except (KeyError, TypeError, ValueError):
        return None


def _read_answer(content: bytes, header_length: int) -> Answer:
    header = json.loads(content[:header_length])
    outputs, start = {}, header_length
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        if output["datatype"] == "FP32":
            values = read_floats(content[start : start + size])
            outputs[output["name"]] = Tensor(tuple(output["shape"]), values)
        start += size
    return Answer(header["model_version"], outputs)
