"""Callers, each as cheap as its protocol allows: the service is measured, not the load.

Each is made from a URL, photos, and the number of photos in a request (only `grpc` and `pixels` can have several). It
builds its requests at once, and returns a function that sends request number N, waits for the answer, returns it as it
came, and raises an exception if there is none or if it is an error. `READERS` make the JSON for one photo of it.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import struct
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import numpy as np
import tritonclient.grpc
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2, service_pb2_grpc

from car_analyzer import CarAnalyzer

from .rivals.reading import HEADS, SIDE, answers, infer, pixels, sessions

Client: TypeAlias = Callable[[int], object]

ADMIN_KEY = "benchmark"
_ADMIN_HEADER = "triton-grpc-protocol-admin-key"
CLASSES = 2
_TIMEOUT_S = 120


def upload(url: str, photos: list[bytes], _batch: int = 1) -> Client:
    """A form with the photo in the field `image`."""
    head = (
        b'--end\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=end"}
    return _post(url, urlsplit(url).path, [(head + photo + b"\r\n--end--\r\n", headers) for photo in photos])


def triton_http(url: str, photos: list[bytes], _batch: int = 1) -> Client:
    """Triton's binary HTTP extension."""

    def request(photo: bytes) -> tuple[bytes, dict[str, str]]:
        size = {"binary_data_size": len(photo) + 4}
        image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": size}
        header = json.dumps({"inputs": [image], "parameters": {"binary_data_output": True}}).encode()
        return header + element(photo), {"Inference-Header-Content-Length": str(len(header))}

    return _post(url, "/v2/models/car_analyzer/infer", [request(photo) for photo in photos])


def triton_grpc(url: str, photos: list[bytes], batch: int = 1) -> Client:
    """Triton's gRPC service."""
    infer_method, requests = _infer_method(url), []
    for first in range(len(photos)):
        request = service_pb2.ModelInferRequest(model_name="car_analyzer")
        request.inputs.add(name="image", datatype="BYTES", shape=[batch, 1])
        request.raw_input_contents.append(b"".join(map(element, islice(cycle(photos), first, first + batch))))
        requests.append(request)
    return lambda number: infer_method(requests[number % len(requests)], timeout=_TIMEOUT_S)


def heads(url: str, _photos: list[bytes], batch: int = 1) -> Client:
    """Both heads, asked about pixels in shared memory: copies over the network are not measured."""
    content = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)
    name = f"car_analyzer_benchmark_{os.getpid()}_{id(content)}"
    region = shm.create_shared_memory_region(name, f"/{name}", content.nbytes)
    atexit.register(shm.destroy_shared_memory_region, region)
    shm.set_shared_memory_region(region, [content])
    control, key = tritonclient.grpc.InferenceServerClient(urlsplit(url).netloc), {_ADMIN_HEADER: ADMIN_KEY}
    control.register_system_shared_memory(name, f"/{name}", content.nbytes, headers=key)
    atexit.register(control.unregister_system_shared_memory, name, headers=key)
    infer_method, requests = _infer_method(url), []
    for head in HEADS:
        request = service_pb2.ModelInferRequest(model_name=head)
        given = request.inputs.add(name="pixels", datatype="UINT8", shape=content.shape)
        given.parameters["shared_memory_region"].string_param = name
        given.parameters["shared_memory_byte_size"].int64_param = content.nbytes
        requests.append(request)

    def ask(_number: int) -> None:
        for running in [infer_method.future(request, timeout=_TIMEOUT_S) for request in requests]:
            running.result()

    return ask


def sdk(url: str, photos: list[bytes], _batch: int = 1) -> Client:
    """The Python SDK, with everything it does for its callers."""
    analyzer = CarAnalyzer(url, timeout=_TIMEOUT_S)
    return lambda number: analyzer.analyze(photos[number % len(photos)])


def limit(url: str, photos: list[bytes], _batch: int = 1) -> Client:
    """No service: it decodes and runs both networks itself. The URL is the path of the model repository."""
    loaded = sessions(Path(url))
    return lambda number: infer(loaded, pixels(photos[number % len(photos)])[None])


CLIENTS: dict[str, Callable[..., Client]] = {
    "upload": upload,
    "http": triton_http,
    "grpc": triton_grpc,
    "pixels": heads,
    "sdk": sdk,
    "limit": limit,
}
# One of these serves all threads.
SHARED = ("sdk", "limit")


def element(photo: bytes) -> bytes:
    """A BYTES element as Triton expects it."""
    return struct.pack("<I", len(photo)) + photo


def _read_upload(content: bytes) -> dict[str, Any]:
    """JSON; of a service that takes batches, a list of one."""
    found = json.loads(content)
    photo: dict[str, Any] = found[0] if isinstance(found, list) else found
    return photo


def _read_http(content: bytes) -> dict[str, Any]:
    """A JSON header, and then the logits of each output."""
    size = 4 * CLASSES * len(HEADS)
    return _read_logits([output["name"] for output in json.loads(content[:-size])["outputs"]], content[-size:])


def _read_grpc(response: Any) -> dict[str, Any]:
    return _read_logits([output.name for output in response.outputs], b"".join(response.raw_output_contents))


def _read_logits(names: list[str], content: bytes) -> dict[str, Any]:
    rows = np.frombuffer(content, np.float32).reshape(-1, 1, CLASSES)
    return answers({name.removesuffix("_logits"): row for name, row in zip(names, rows, strict=True)})[0]


READERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "upload": _read_upload,
    "http": _read_http,
    "grpc": _read_grpc,
    "sdk": lambda analysis: analysis.to_dict(),
    "limit": lambda logits: answers(logits)[0],
}


def _infer_method(url: str) -> Any:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    return service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(urlsplit(url).netloc, options)).ModelInfer


def _post(url: str, path: str, requests: list[tuple[bytes, dict[str, str]]]) -> Client:
    """POSTs bodies with their headers on one kept connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)

    def ask(number: int) -> bytes:
        try:
            connection.request("POST", path, *requests[number % len(requests)])
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        if response.status != 200:
            raise RuntimeError(f"{response.status} {content[:300]!r}")
        return content

    return ask
