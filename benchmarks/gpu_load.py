"""Load for a GPU: JPEGs or pixels, as fast as answers come or at a steady rate. Several of it run as processes."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import numpy as np
import tritonclient.grpc
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .clients import CLIENTS, Client
from .load import drive_all, measure

HEADS = ("cleanliness", "condition")
SIDE = 224
_ADMIN_KEY = "triton-grpc-protocol-admin-key"
_WARM_UP_SECONDS = 1.0


class Pixels:
    """Asks both heads about a batch of pixels that lie in shared memory: what is measured is not the network's copies.

    Args:
        url: Of Triton's gRPC.
        key: Of its administrator, who may register shared memory.
        batch: Photos in one request.
    """

    def __init__(self, url: str, key: str, batch: int) -> None:
        address = urlsplit(url).netloc
        self._name = f"car_analyzer_benchmark_{os.getpid()}_{id(self)}"
        pixels = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)
        self._region = shm.create_shared_memory_region(self._name, f"/{self._name}", pixels.nbytes)
        shm.set_shared_memory_region(self._region, [pixels])
        self._control = tritonclient.grpc.InferenceServerClient(address)
        self._headers = {_ADMIN_KEY: key}
        self._control.register_system_shared_memory(self._name, f"/{self._name}", pixels.nbytes, headers=self._headers)
        channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        self._requests = [self._request(head, pixels.shape, pixels.nbytes) for head in HEADS]

    def ask(self, _number: int) -> None:
        for answer in [self._infer.future(request, timeout=120) for request in self._requests]:
            answer.result()

    def close(self) -> None:
        """Gives the shared memory back."""
        self._control.unregister_system_shared_memory(self._name, headers=self._headers)
        shm.destroy_shared_memory_region(self._region)

    def _request(self, head: str, shape: tuple[int, ...], size: int) -> Any:
        request = service_pb2.ModelInferRequest(model_name=head)
        pixels = request.inputs.add(name="pixels", datatype="UINT8", shape=shape)
        pixels.parameters["shared_memory_region"].string_param = self._name
        pixels.parameters["shared_memory_byte_size"].int64_param = size
        return request


def main() -> int:
    """Prints the same as `benchmarks.load`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--photos", type=Path, help="a pickled list of bytes; without it, pixels are sent")
    parser.add_argument("--batch", type=int, default=32, help="pixels in one request; default: %(default)s")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=float, help="photos a second, whatever the answers take; default: all it can")
    arguments = parser.parse_args()
    if arguments.photos is not None:
        photos = pickle.loads(arguments.photos.read_bytes())  # noqa: S301 - our own, just written
        clients = [CLIENTS["grpc"](arguments.url, photos) for _ in range(arguments.clients)]
        print(json.dumps(_drive(clients, len(photos), arguments)))
        return 0
    key = os.environ["CAR_ANALYZER_ADMIN_KEY"]
    senders = [Pixels(arguments.url, key, arguments.batch) for _ in range(arguments.clients)]
    try:
        print(json.dumps(_drive(senders, 1, arguments)))
    finally:
        for sender in senders:
            sender.close()
    return 0


def _drive(clients: list[Any], photos: int, arguments: argparse.Namespace) -> dict[str, object]:
    for client in clients:
        client.ask(0)  # connects
    if arguments.rate is None:
        return measure(clients, photos, _WARM_UP_SECONDS, arguments.seconds)
    return _at_a_rate(clients, photos, arguments.rate, arguments.seconds)


def _at_a_rate(clients: list[Client], photos: int, rate: float, seconds: float) -> dict[str, object]:
    """Sends at fixed moments. An answer's time counts from the moment meant, also when its client was late to send."""
    start = time.perf_counter() + 0.2
    end = start + _WARM_UP_SECONDS + seconds
    interval = len(clients) / rate
    latencies: list[float] = []
    errors: list[str] = []

    def drive(client: Client, number: int) -> None:
        due = start + interval * number / len(clients)
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                client.ask(number % photos)
            except Exception as error:
                errors.append(repr(error)[:300])
            else:
                if due >= start + _WARM_UP_SECONDS:
                    latencies.append((time.perf_counter() - due) * 1000)
            number += 1
            due += interval

    drive_all(drive, clients)
    return {"seconds": seconds, "latencies_ms": latencies, "errors": errors[:20]}


if __name__ == "__main__":
    sys.exit(main())
