"""Wrong requests to a running Triton: each must get a client error, and affect no other request.

Only those whose answer this project decides: its configurations (shapes, types, names, versions, batches), its
preprocess step (strings that cannot be read), and `serve` (administration). Triton's own parsers are Triton's to test.

Known limits of Triton 2.51 that no setting removes: JSON of about 150,000 lists or objects inside each other crashes
it, and HTTP connections that never finish a request stay open. So its HTTP port is for callers you trust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .harness import Row
from .reference import EXAMPLES, reference_photos
from .triton_client import InferRequest, Reply, Running, TritonClient, UnexpectedAnswerError, as_string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PIXELS = 224 * 224 * 3
CLIENT_ERRORS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "FAILED_PRECONDITION", "PERMISSION_DENIED"}
# Triton answers UNAVAILABLE where its key is missing.
RESTRICTED = "This protocol is restricted"
_PHOTO = as_string((EXAMPLES / "photos" / "clean_intact_1.jpg").read_bytes())


def _pixels(model: str, *shape: int, datatype: str = "UINT8", size: int = PIXELS) -> InferRequest:
    return InferRequest(bytes(size), model, name="pixels", datatype=datatype, shape=shape)


INFERENCES: Mapping[str, InferRequest] = {
    "an empty shape": InferRequest(_PHOTO, shape=()),
    "no dimension for the batch": InferRequest(_PHOTO, shape=(1,)),
    "too many dimensions": InferRequest(_PHOTO, shape=(1, 1, 1)),
    "two photos for one": InferRequest(_PHOTO, shape=(1, 2)),
    "a batch of 0": InferRequest(b"", shape=(0, 1)),
    "a batch of 33": InferRequest(_PHOTO * 33, shape=(33, 1)),
    "a batch of 2 ** 62": InferRequest(_PHOTO, shape=(2**62, 4)),
    "numbers for a photo": InferRequest(bytes(4), datatype="FP32"),
    "an unknown type": InferRequest(_PHOTO, datatype="PHOTO"),
    "another name": InferRequest(_PHOTO, name="picture"),
    "no name": InferRequest(_PHOTO, name=""),
    "no data": InferRequest(b""),
    "a text as a photo": InferRequest(as_string(b"x")),
    "an empty photo": InferRequest(as_string(b"")),
    "a string longer than its data": InferRequest(as_string(b"x", 1000)),
    "a string of 4 GB": InferRequest(as_string(b"x", 2**32 - 1)),
    "a string shorter than its data": InferRequest(as_string(b"xyz", 1)),
    "half a length": InferRequest(b"\1\0"),
    "an unknown output": InferRequest(_PHOTO, output="price"),
    "an output of an inner step": InferRequest(_PHOTO, output="pixels"),
    "an unknown model": InferRequest(_PHOTO, "truck_analyzer"),
    "an unknown version": InferRequest(_PHOTO, version="99"),
    "a version of text": InferRequest(_PHOTO, version="latest"),
    "preprocess with pixels": _pixels("preprocess", 1, 224, 224, 3),
    "preprocess with numbers": InferRequest(bytes(4), "preprocess", datatype="INT32"),
    "preprocess with too many strings": InferRequest(as_string(b"x") + _PHOTO, "preprocess"),
    "a head with a photo": InferRequest(_PHOTO, "condition"),
    "a head with small pixels": _pixels("condition", 1, 32, 32, 3, size=32 * 32 * 3),
    "a head with too little data": _pixels("condition", 1, 224, 224, 3, size=100),
    "a head with too much data": _pixels("condition", 1, 224, 224, 3, size=PIXELS * 2),
    "a head with floats": _pixels("cleanliness", 1, 224, 224, 3, datatype="FP32", size=PIXELS * 4),
    "a head with grey pixels": _pixels("cleanliness", 1, 224, 224, 1, size=224 * 224),
    "a head with channels first": _pixels("cleanliness", 1, 3, 224, 224),
    "a head with a batch of 0": _pixels("cleanliness", 0, 224, 224, 3, size=0),
    "a head with a batch of 33": _pixels("cleanliness", 33, 224, 224, 3, size=PIXELS * 33),
}
"""Requests for inference, sent over both protocols."""

ADMINISTRATION = {
    "the index of the repository": ("/v2/repository/index", "RepositoryIndex"),
    "loading a model": ("/v2/repository/models/condition/load", "RepositoryModelLoad"),
    "unloading a model": ("/v2/repository/models/condition/unload", "RepositoryModelUnload"),
    "registering shared memory": ("/v2/systemsharedmemory/region/x/register", "SystemSharedMemoryRegister"),
    "changing the log": ("/v2/logging", "LogSettings"),
    "changing the trace": ("/v2/trace/setting", "TraceSetting"),
}
"""Path and gRPC method of what needs the administrator's key."""


class RequestTrial:
    """Wrong requests to one server.

    Args:
        server: Running, with the demo models.
        each: After how many requests a photo with an expected answer is sent.

    Attributes:
        rows: Of the table.
        complaints: What went wrong, by name.
    """

    def __init__(self, server: Running, each: int = 1) -> None:
        self.rows: list[Row] = []
        self.complaints: list[str] = []
        self._server = server
        self._each = each

    def run(self) -> None:
        """Sends them all."""
        with TritonClient(self._server) as client:
            for protocol, title in (("http", "HTTP"), ("grpc", "gRPC")):
                tried, before = 0, len(self.complaints)
                for tried, (name, reply) in enumerate(_replies(client, protocol), 1):
                    if not _blames_client(reply):
                        self.complaints.append(f"{protocol}, {name}: {reply}")
                    if tried % self._each == 0:
                        self._check_server(client, protocol, name)
                lost = len(self.complaints) - before
                self.rows.append(Row(f"wrong requests over {title}", tried, lost, "each answered with a client error"))

    def _check_server(self, client: TritonClient, protocol: str, name: str) -> None:
        photo = reference_photos()[0]
        try:
            answer = client.infer(protocol, photo.content)
        except UnexpectedAnswerError as error:
            answer = str(error)
        if isinstance(answer, str) or not photo.matches(answer[0]):
            self.complaints.append(f"{protocol}, after {name}: a reference photo got {answer}")


def _replies(client: TritonClient, protocol: str) -> Iterator[tuple[str, Reply]]:
    for name, request in INFERENCES.items():
        yield name, client.send(protocol, request)
    for name, (path, method) in ADMINISTRATION.items():
        yield name, client.post(path) if protocol == "http" else client.call(method)


def _blames_client(reply: Reply) -> bool:
    if reply.status == "UNAVAILABLE":
        return reply.message.startswith(RESTRICTED)
    return reply.status in CLIENT_ERRORS or reply.status.startswith("4")
