"""Requests to Triton over gRPC, each of which deserves a status that blames the client."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from reliability.known import known_photos

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SERVICE = "/inference.GRPCInferenceService"
TIMEOUT_S = 30
PIXELS = 224 * 224 * 3


def photo() -> bytes:
    """A good photo as Triton wants a string: its length first."""
    content = known_photos()[0].photo
    return struct.pack("<I", len(content)) + content


def request(*, raw: list[bytes] | None = None, model: str = "car_analyzer", version: str = "", **changes: Any) -> Any:
    """An inference request that is right but for the changes to its only input."""
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1, 1]} | changes
    infer = pb.ModelInferRequest(model_name=model, model_version=version)
    infer.inputs.add(**tensor)
    infer.raw_input_contents.extend([photo()] if raw is None else raw)
    return infer


def changed(change: Callable[[Any], object]) -> Any:
    """A good request after a change."""
    infer = request()
    change(infer)
    return infer


def inner(model: str, datatype: str, shape: list[int], size: int, name: str = "pixels") -> Any:
    """A request to one of the ensemble's steps."""
    return request(raw=[bytes(size)], model=model, name=name, datatype=datatype, shape=shape)


def shared(offset: int, size: int) -> Any:
    """A request with an input in shared memory that nobody has registered."""
    infer = request(raw=[])
    parameters = infer.inputs[0].parameters
    parameters["shared_memory_region"].string_param = "photo"
    parameters["shared_memory_offset"].int64_param = offset
    parameters["shared_memory_byte_size"].int64_param = size
    return infer


def _output(name: str, **parameters: int) -> Callable[[Any], object]:
    def change(infer: Any) -> None:
        output = infer.outputs.add(name=name)
        for key, value in parameters.items():
            output.parameters[key].int64_param = value

    return change


def _parameter(name: str, **value: Any) -> Callable[[Any], object]:
    return lambda infer: infer.parameters[name].CopyFrom(pb.InferParameter(**value))


INFERENCES: Mapping[str, Any] = {
    "an empty request": pb.ModelInferRequest(),
    "no inputs": pb.ModelInferRequest(model_name="car_analyzer"),
    "no data": request(raw=[]),
    "an empty shape": request(shape=[]),
    "no dimension for the batch": request(shape=[1]),
    "too many dimensions": request(shape=[1, 1, 1]),
    "two photos for one": request(shape=[1, 2]),
    "a batch of 0": request(shape=[0, 1], raw=[b""]),
    "a batch of 33": request(shape=[33, 1], raw=[photo() * 33]),
    "a negative batch": request(shape=[-1, 1]),
    "the most negative batch": request(shape=[-(2**63), 1]),
    "a batch of 2 ** 62 x 4": request(shape=[2**62, 4]),
    "numbers for a photo": request(datatype="FP32", raw=[bytes(4)]),
    "an unknown type": request(datatype="PHOTO"),
    "no type": request(datatype=""),
    "another name": request(name="picture"),
    "no name": request(name=""),
    "a name of 1 MB": request(name="a" * 1_000_000),
    "the input twice": changed(lambda infer: infer.inputs.add().CopyFrom(infer.inputs[0])),
    "one input too many": changed(lambda infer: infer.inputs.add(name="more", datatype="BYTES", shape=[1, 1])),
    "one piece of data too many": request(raw=[photo(), photo()]),
    "a thousand inputs": changed(
        lambda infer: [infer.inputs.add(name=f"i{n}", datatype="BYTES", shape=[1, 1]) for n in range(1000)]
    ),
    "data in two places": changed(lambda infer: infer.inputs[0].contents.bytes_contents.append(b"x")),
    "data of another type": request(raw=[], contents=pb.InferTensorContents(fp32_contents=[1.0])),
    "too much data in place": request(raw=[], contents=pb.InferTensorContents(bytes_contents=[b"x", b"y"])),
    "a text as a photo": request(raw=[], contents=pb.InferTensorContents(bytes_contents=[b"x"])),
    "a string longer than its data": request(raw=[struct.pack("<I", 1000) + b"x"]),
    "a string of 4 GB": request(raw=[struct.pack("<I", 2**32 - 1) + b"x"]),
    "a string shorter than its data": request(raw=[struct.pack("<I", 1) + b"xyz"]),
    "half a length": request(raw=[b"\1\0"]),
    "an empty photo": request(raw=[bytes(4)]),
    "an unknown output": changed(_output("price")),
    "an output without a name": changed(_output("")),
    "an output of an inner step": changed(_output("pixels")),
    "a negative classification": changed(_output("condition_logits", classification=-1)),
    "shared memory that is not there": shared(0, 100),
    "shared memory at a negative place": shared(-1, 100),
    "shared memory of negative size": shared(0, -1),
    "a sequence that is no number": changed(_parameter("sequence_id", bool_param=True)),
    "a priority of text": changed(_parameter("priority", string_param="high")),
    "a time limit of text": changed(_parameter("timeout", string_param="long")),
    "a parameter that belongs to Triton": changed(_parameter("triton_x", int64_param=5)),
    "an unknown model": request(model="truck_analyzer"),
    "no model": request(model=""),
    "a path for a model": request(model="../../etc/passwd"),
    "an unknown version": request(version="99"),
    "a version of text": request(version="latest"),
    "a version beyond 64 bits": request(version=str(2**70)),
    "preprocess with pixels": inner("preprocess", "UINT8", [1, 224, 224, 3], PIXELS),
    "preprocess with numbers": inner("preprocess", "INT32", [1, 1], 4, "image"),
    "preprocess with too many strings": request(model="preprocess", raw=[struct.pack("<I", 1) + b"x" + photo()]),
    "a head with a photo": request(model="condition"),
    "a head with small pixels": inner("condition", "UINT8", [1, 32, 32, 3], 32 * 32 * 3),
    "a head with too little data": inner("condition", "UINT8", [1, 224, 224, 3], 100),
    "a head with too much data": inner("condition", "UINT8", [1, 224, 224, 3], PIXELS * 2),
    "a head with floats": inner("cleanliness", "FP32", [1, 224, 224, 3], PIXELS * 4),
    "a head with channels first": inner("cleanliness", "UINT8", [1, 3, 224, 224], PIXELS),
    "a head with a batch of 0": inner("cleanliness", "UINT8", [0, 224, 224, 3], 0),
    "a head with a batch of 33": inner("cleanliness", "UINT8", [33, 224, 224, 3], PIXELS * 33),
}
"""Messages to ModelInfer, by name."""

GARBAGE: Mapping[str, tuple[str, bytes]] = {
    "a message of noise": ("ModelInfer", bytes(range(255, 0, -1)) * 10),
    "a message cut short": ("ModelInfer", request().SerializeToString()[:-100]),
    "a field of 2 GB": ("ModelInfer", b"\x0a\xff\xff\xff\xff\x07x"),
    "groups in groups": ("ModelInfer", b"\x0b" * 100_000),
    "a name of broken UTF-8": ("ModelInfer", b"\x0a\x02\xff\xfe"),
    "a method that is not there": ("ModelAnalyze", b""),
    "a repository index": ("RepositoryIndex", b""),
    "loading a model": (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(model_name="condition").SerializeToString(),
    ),
    "unloading a model": (
        "RepositoryModelUnload",
        pb.RepositoryModelUnloadRequest(model_name="condition").SerializeToString(),
    ),
    "registering shared memory": (
        "SystemSharedMemoryRegister",
        pb.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=10).SerializeToString(),
    ),
    "changing the log": ("LogSettings", b""),
    "changing the trace": ("TraceSetting", b""),
    "the configuration of an unknown model": ("ModelConfig", pb.ModelConfigRequest(name="x").SerializeToString()),
    "the metadata of an unknown model": ("ModelMetadata", pb.ModelMetadataRequest(name="x").SerializeToString()),
    "the statistics of an unknown model": ("ModelStatistics", pb.ModelStatisticsRequest(name="x").SerializeToString()),
}
"""Bytes to methods, by name."""

STREAMED = ("no inputs", "another name", "an unknown model", "a batch of 33", "a text as a photo", "an empty request")
"""Which of `INFERENCES` are also sent as streams."""


def call(channel: grpc.Channel, method: str, message: bytes) -> tuple[str, str]:
    """Sends bytes to a method; returns the name of the status and the text with it."""
    # Bytes as they are, in both directions.
    invoke = channel.unary_unary(f"{SERVICE}/{method}", request_serializer=None, response_deserializer=None)
    try:
        answer = invoke(message, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code().name, str(error.details())
    return "OK", repr(answer[:200])


def stream(channel: grpc.Channel, *messages: Any) -> tuple[str, str]:
    """Sends messages as a stream; returns `OK` or `ERROR` with the text of the first answer, or the call's status."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    try:
        # To its end: a stream that is left holds up the server when it is to stop.
        answers = list(stub.ModelStreamInfer(iter(messages), timeout=TIMEOUT_S))
    except grpc.RpcError as error:
        return error.code().name, str(error.details())
    if not answers:
        return "NOTHING", ""
    message = answers[0].error_message
    return ("ERROR", message) if message else ("OK", str(answers[0])[:200])
