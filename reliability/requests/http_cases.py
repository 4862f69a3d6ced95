"""Requests to Triton over HTTP, each of which deserves a 4xx."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from reliability.known import known_photos

from .wire import chunked, head, post

if TYPE_CHECKING:
    from collections.abc import Mapping

INFER = "/v2/models/car_analyzer/infer"


def photo() -> bytes:
    """A good photo as Triton wants a string: its length first."""
    content = known_photos()[0].photo
    return struct.pack("<I", len(content)) + content


def request(*, tail: bytes | None = None, path: str = INFER, lie: int | None = None, **changes: Any) -> bytes:
    """An inference request that is right but for the changes to its only input.

    Args:
        tail: The binary data, a good photo by default.
        path: Where to send it.
        lie: What to say is the length of the JSON.
        changes: Fields of the input; a field of None is left out. `top` has fields of the request itself.
    """
    data = photo() if tail is None else tail
    top = changes.pop("top", {})
    tensor = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(data)},
    } | changes
    text = json.dumps({"inputs": [{k: v for k, v in tensor.items() if v is not None}]} | top).encode()
    return post(path, text + data, Inference_Header_Content_Length=len(text) if lie is None else lie)


def plain(body: Any, path: str = INFER) -> bytes:
    """A request of JSON only."""
    return post(path, body if isinstance(body, bytes) else json.dumps(body).encode())


def inner(model: str, name: str, datatype: str, shape: list[int], size: int) -> bytes:
    """A request to one of the ensemble's steps."""
    path = f"/v2/models/{model}/infer"
    return request(tail=bytes(size), path=path, name=name, datatype=datatype, shape=shape)


def sized(length: int, content: bytes) -> bytes:
    """A string with a length that need not be its own."""
    return struct.pack("<I", length) + content


TENSOR = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}
PIXELS = 224 * 224 * 3

CASES: Mapping[str, bytes] = {
    # Shapes, types, counts, names.
    "an empty shape": request(shape=[]),
    "no dimension for the batch": request(shape=[1]),
    "too many dimensions": request(shape=[1, 1, 1]),
    "two photos for one": request(shape=[1, 2]),
    "a batch of 0": request(shape=[0, 1], tail=b""),
    "a batch of 33": request(shape=[33, 1], tail=photo() * 33),
    "a negative batch": request(shape=[-1, 1]),
    "a batch of 2 ** 40": request(shape=[2**40, 1]),
    "a batch of 2 ** 62 x 4": request(shape=[2**62, 4]),
    "a shape beyond 64 bits": request(shape=[2**64, 1]),
    "a shape of fractions": request(shape=[1.5, 1]),
    "a shape of text": request(shape=["1", "1"]),
    "no shape": request(shape=None),
    "a shape of nothing": plain(b'{"inputs": [{"name": "image", "shape": null, "datatype": "BYTES", "data": ["x"]}]}'),
    "numbers for a photo": request(datatype="FP32", tail=bytes(4)),
    "bytes as numbers for a photo": request(datatype="UINT8", tail=bytes(1)),
    "an unknown type": request(datatype="PHOTO"),
    "no type": request(datatype=None),
    "another name": request(name="picture"),
    "an empty name": request(name=""),
    "no name": request(name=None),
    "no inputs": plain({}),
    "an empty list of inputs": plain({"inputs": []}),
    "the input twice": plain({"inputs": [TENSOR, TENSOR]}),
    "one input too many": plain({"inputs": [TENSOR, TENSOR | {"name": "more"}]}),
    "a number as data": plain({"inputs": [TENSOR | {"data": [1]}]}),
    "too little data": plain({"inputs": [TENSOR | {"data": []}]}),
    "too much data": plain({"inputs": [TENSOR | {"data": ["x", "y"]}]}),
    "nested data": plain({"inputs": [TENSOR | {"data": [[["x"]]], "shape": [1, 1]}]}),
    "data that is no list": plain({"inputs": [TENSOR | {"data": "x"}]}),
    "no data": plain({"inputs": [{k: v for k, v in TENSOR.items() if k != "data"}]}),
    "a text as a photo": plain({"inputs": [TENSOR]}),
    # Lengths.
    "a string longer than its data": request(tail=sized(1000, b"x")),
    "a string of 4 GB": request(tail=sized(2**32 - 1, b"x")),
    "a string shorter than its data": request(tail=sized(1, b"xyz")),
    "half a length": request(tail=b"\1\0"),
    "binary data smaller than sent": request(parameters={"binary_data_size": 5}),
    "binary data larger than sent": request(parameters={"binary_data_size": 10**6}),
    "binary data of 4 GB": request(parameters={"binary_data_size": 2**32}),
    "binary data of 2 ** 63": request(parameters={"binary_data_size": 2**63}),
    "negative binary data": request(parameters={"binary_data_size": -1}),
    "binary data of a fraction": request(parameters={"binary_data_size": 0.5}),
    "binary data of text": request(parameters={"binary_data_size": "5"}),
    "binary data and data": request(data=["x"]),
    "a JSON length of 0 with JSON": request(lie=0),
    "a JSON length too short": request(lie=10),
    "a JSON length too long": request(lie=10**6),
    "a JSON length of 2 ** 63": request(lie=2**63),
    "a negative JSON length": request(lie=-1),
    "a JSON length of text": post(INFER, photo(), Inference_Header_Content_Length="all"),
    "an empty body": post(INFER, b""),
    "an empty photo": post(INFER, b"", Inference_Header_Content_Length=0),
    # JSON.
    "no JSON": plain(b"photo"),
    "half JSON": plain(b'{"inputs": [{"name":'),
    "JSON that is a list": plain([]),
    "JSON that is a number": plain(1),
    "JSON null": plain(b"null"),
    "JSON not a number": plain(
        b'{"inputs": [{"name": "image", "shape": [NaN, 1], "datatype": "BYTES", "data": ["x"]}]}'
    ),
    "JSON infinity": plain(b'{"inputs": [{"name": "image", "shape": [1e999, 1], "datatype": "BYTES", "data": ["x"]}]}'),
    "JSON of broken UTF-8": plain(
        b'{"inputs": [{"name": "\xff\xfe", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}]}'
    ),
    "JSON with a null character": plain(b'{"inputs\0": []}'),
    "inputs that are no list": plain({"inputs": "image"}),
    "inputs that are numbers": plain({"inputs": [1, 2]}),
    "a number of 10,000 digits": plain(b'{"inputs": [' + b"9" * 10_000 + b"]}"),
    "100,000 inputs": plain({"inputs": [TENSOR] * 100_000}),
    "lists in lists, 10,000 deep": plain(b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "objects in objects, 10,000 deep": plain(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "data in lists, 1,000 deep": plain(
        b'{"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": '
        + b"[" * 1000
        + b'"x"'
        + b"]" * 1000
        + b"}]}"
    ),
    # Parameters and outputs.
    "an unknown output": request(top={"outputs": [{"name": "price"}]}),
    "an output without a name": request(top={"outputs": [{}]}),
    "an output of an inner step": request(top={"outputs": [{"name": "pixels"}]}),
    "outputs that are no list": request(top={"outputs": 1}),
    "a negative classification": request(
        top={"outputs": [{"name": "condition_logits", "parameters": {"classification": -1}}]}
    ),
    "a classification of text": request(
        top={"outputs": [{"name": "condition_logits", "parameters": {"classification": "all"}}]}
    ),
    "shared memory that is not there": request(
        tail=b"", parameters={"shared_memory_region": "photo", "shared_memory_byte_size": 100}
    ),
    "an output into shared memory that is not there": request(
        top={"outputs": [{"name": "condition_logits", "parameters": {"shared_memory_region": "out"}}]}
    ),
    "shared memory beyond 64 bits": request(
        tail=b"",
        parameters={"shared_memory_region": "x", "shared_memory_offset": 2**63, "shared_memory_byte_size": 2**63},
    ),
    "a sequence that is no number": request(top={"parameters": {"sequence_id": []}}),
    "a priority of text": request(top={"parameters": {"priority": "high"}}),
    "a time limit of text": request(top={"parameters": {"timeout": "long"}}),
    "parameters that are a list": request(top={"parameters": [1]}),
    "parameters that belong to Triton": request(top={"parameters": {"triton_enable_empty_final_response": 5}}),
    "an id that is a list": request(top={"id": [1]}),
    # Models.
    "an unknown model": request(path="/v2/models/truck_analyzer/infer"),
    "an unknown version": request(path="/v2/models/car_analyzer/versions/99/infer"),
    "a version of text": request(path="/v2/models/car_analyzer/versions/latest/infer"),
    "a negative version": request(path="/v2/models/car_analyzer/versions/-2/infer"),
    "a version beyond 64 bits": request(path=f"/v2/models/car_analyzer/versions/{2**70}/infer"),
    "a path to another folder": request(path="/v2/models/..%2f..%2fetc%2fpasswd/infer"),
    "a path up": request(path="/v2/models/../../../../etc/passwd"),
    "a model of 60,000 letters": request(path=f"/v2/models/{'a' * 60_000}/infer"),
    "a model with a null character": request(path="/v2/models/car%00analyzer/infer"),
    "a model with a line end": request(path="/v2/models/car%0d%0aX:%20y/infer"),
    "an unknown path": head("GET", "/v3", {"Host": "localhost"}),
    "the configuration of an unknown model": head("GET", "/v2/models/x/config", {"Host": "localhost"}),
    "the statistics of an unknown model": head("GET", "/v2/models/x/stats", {"Host": "localhost"}),
    # Inner models.
    "preprocess with pixels": inner("preprocess", "pixels", "UINT8", [1, 224, 224, 3], PIXELS),
    "preprocess with numbers": inner("preprocess", "image", "INT32", [1, 1], 4),
    "preprocess with two photos in a row": request(path="/v2/models/preprocess/infer", shape=[1, 2]),
    "preprocess with a text": plain({"inputs": [TENSOR]}, "/v2/models/preprocess/infer"),
    "a head with a photo": request(path="/v2/models/condition/infer"),
    "a head with small pixels": inner("condition", "pixels", "UINT8", [1, 32, 32, 3], 32 * 32 * 3),
    "a head with too little data": inner("condition", "pixels", "UINT8", [1, 224, 224, 3], 100),
    "a head with too much data": inner("condition", "pixels", "UINT8", [1, 224, 224, 3], PIXELS * 2),
    "a head with floats": inner("cleanliness", "pixels", "FP32", [1, 224, 224, 3], PIXELS * 4),
    "a head with grey pixels": inner("cleanliness", "pixels", "UINT8", [1, 224, 224, 1], 224 * 224),
    "a head with channels first": inner("cleanliness", "pixels", "UINT8", [1, 3, 224, 224], PIXELS),
    "a head with a batch of 0": inner("cleanliness", "pixels", "UINT8", [0, 224, 224, 3], 0),
    "a head with a batch of 33": inner("cleanliness", "pixels", "UINT8", [33, 224, 224, 3], PIXELS * 33),
    "a head with text pixels": plain(
        {"inputs": [{"name": "pixels", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": ["x"]}]},
        "/v2/models/condition/infer",
    ),
    "a head with pixels out of range": plain(
        {"inputs": [{"name": "pixels", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [999] * PIXELS}]},
        "/v2/models/condition/infer",
    ),
    # Methods and HTTP.
    "GET for an inference": head("GET", INFER, {"Host": "localhost"}),
    "DELETE for an inference": head("DELETE", INFER, {"Host": "localhost"}),
    "PUT for an inference": head("PUT", INFER, {"Host": "localhost", "Content-Length": 0}),
    "POST for the health": post("/v2/health/ready", b""),
    "an unknown method": head("ANALYZE", INFER, {"Host": "localhost"}),
    "a path of 70,000 letters": head("GET", "/" + "a" * 70_000, {"Host": "localhost"}),
    "a header of 1 MB": head("GET", "/v2", {"Host": "localhost", "X": "a" * 1_000_000}),
    "100,000 headers": head("GET", "/v2x", {f"X-{number}": "a" for number in range(100_000)}),
    "a negative length": post(INFER, b"", Content_Length=-1),
    "a length of text": post(INFER, b"", Content_Length="all"),
    "two lengths": post(INFER, photo(), content_length=3),
    "a length and chunks": post(INFER, b"0\r\n\r\n", Transfer_Encoding="chunked"),
    "an unknown transfer encoding": post(INFER, photo(), Transfer_Encoding="zip"),
    "an unknown content encoding": post(INFER, photo(), Content_Encoding="zip", Inference_Header_Content_Length=0),
    "a body that is no gzip": post(INFER, photo(), Content_Encoding="gzip", Inference_Header_Content_Length=0),
    "chunks of text": chunked(INFER, [b"5\r\nphoto\r\n0\r\n\r\n"]),
    "a chunk of no size": chunked(INFER, [b"photo\r\n"]),
    "a chunk of 2 ** 64": chunked(INFER, [b"10000000000000000\r\nx"]),
    "a negative chunk": chunked(INFER, [b"-5\r\nphoto\r\n"]),
    # Administration, which is closed to those without its key.
    "loading a model": post("/v2/repository/models/condition/load", b"{}"),
    "unloading a model": post("/v2/repository/models/condition/unload", b"{}"),
    "the index of the repository": post("/v2/repository/index", b"{}"),
    "registering shared memory": post(
        "/v2/systemsharedmemory/region/x/register", b'{"key": "/x", "offset": 0, "byte_size": 10}'
    ),
    "changing the log": post("/v2/logging", b'{"log_file": "/tmp/x"}'),
    "changing the trace": post("/v2/trace/setting", b'{"trace_file": "/tmp/x"}'),
    "a wrong key": post("/v2/repository/index", b"{}", admin_key="0123456789abcdef"),
}
"""What is sent, by name."""

NO_HTTP: Mapping[str, bytes] = {
    "no HTTP": b"hello\r\n\r\n",
    "HTTP of the future": b"GET /v2 HTTP/9.9\r\n\r\n",
    "zeros": bytes(10_000),
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "a header without a name": b"GET /v2/x HTTP/1.1\r\n: x\r\n\r\n",
    "a header without a colon": b"GET /v2/x HTTP/1.1\r\nHost\r\n\r\n",
    "a header with a null character": b"GET /v2/x HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "a path with a null character": b"GET /v2/\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body that ends early": post(INFER, photo(), Content_Length=10**6),
    "a length of 4 GB": post(INFER, photo(), Content_Length=2**32),
    "a length of 2 ** 63": post(INFER, photo(), Content_Length=2**63),
}
"""What is no request, or only the start of one: a 4xx or a closed connection will do."""
