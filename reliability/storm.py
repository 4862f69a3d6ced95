"""Asks a service as hard as it is told to, as cheaply as it can: requests are made once, and nothing is tried again.

Runs as a process of its own, so that it does not wait for those who measure. It first finds out what the service can
take, then offers a multiple of that whether or not answers come, and then looks how the service has come through.
What a caller sees during the storm, a second process finds out: this one has too much to do to read answers in time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc  # type: ignore[import-untyped]
import numpy as np
from tritonclient.grpc import service_pb2

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# Who has not heard by then will never hear: it is longer than all queues together. Nothing is cancelled before.
PATIENCE_S = 45.0
TICK_S = 0.005
CHANNELS = 4
# Each may have a connection of its own. What would be more is not sent, and not counted as offered.
MOST_IN_FLIGHT = 4000
# Enough for a percentile, and too few to matter.
WITNESS_RATE = 20.0
TOLERANCE = 1e-3
REFUSED = "exceeds maximum queue size"
EXPIRED = "timeout expired"

Send = Callable[[], Awaitable[str]]


@dataclass
class Phase:
    """What became of the requests of one phase.

    Attributes:
        start: On the monotonic clock of this machine.
        sending: For how many seconds requests were sent.
        answers: How many ended in each way: `answered`, `refused` (the queue is full), `expired` (it waited in a queue
            for too long), `unanswered`, `wrong`, or an error.
        seconds: How long each took, by way.
        ends: When each right answer came, in seconds since the start.
    """

    start: float = field(default_factory=time.monotonic)
    sending: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)

    async def add(self, send: Send) -> None:
        """Sends one request and notes what becomes of it."""
        start = time.monotonic()
        try:
            way = await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(send())), PATIENCE_S)
        except asyncio.TimeoutError:
            way = "unanswered"
        end = time.monotonic()
        self.answers[way] += 1
        self.seconds.setdefault(way, []).append(end - start)
        if way == "answered":
            self.ends.append(end - self.start)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        percentiles = {
            way: dict(zip(("p50", "p99", "max"), np.percentile(seconds, (50, 99, 100)).tolist(), strict=True))
            for way, seconds in self.seconds.items()
        }
        return {
            "start": self.start,
            "sending": self.sending,
            "sent": self.answers.total(),
            "answers": dict(self.answers),
            "seconds": percentiles,
            "rate": self.rate(0, self.sending),
        }

    def rate(self, start: float, end: float) -> float:
        """Right answers a second between two moments, in seconds since the start."""
        return sum(start <= moment < end for moment in self.ends) / (end - start) if end > start else 0.0


async def ask_steadily(send: Send, workers: int, seconds: float) -> Phase:
    """Keeps so many requests in flight."""
    phase = Phase()

    async def work() -> None:
        while time.monotonic() < phase.start + seconds:
            await phase.add(send)

    await asyncio.gather(*(work() for _ in range(workers)))
    phase.sending = seconds
    return phase


async def offer(send: Send, rate: float, seconds: float) -> tuple[Phase, set[asyncio.Task[None]]]:
    """Sends so many requests a second, whether or not answers come; returns those that are still waiting, too."""
    phase = Phase()
    waiting: set[asyncio.Task[None]] = set()
    sent = 0
    while (passed := time.monotonic() - phase.start) < seconds:
        while sent < passed * rate:
            sent += 1
            if len(waiting) < MOST_IN_FLIGHT:
                task = asyncio.create_task(phase.add(send))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
        await asyncio.sleep(TICK_S)
    phase.sending = time.monotonic() - phase.start
    return phase, waiting


def grpc_sender(url: str, photos: list[dict[str, Any]]) -> tuple[Send, Callable[[], Awaitable[Any]]]:
    """Sends photos to Triton over gRPC."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channels = [grpc.aio.insecure_channel(urlsplit(url).netloc, options) for _ in range(CHANNELS)]
    methods = itertools.cycle([channel.unary_unary(METHOD) for channel in channels])
    requests = itertools.cycle([(_grpc_request(photo["photo"]), photo["logits"]) for photo in photos])

    async def send() -> str:
        request, logits = next(requests)
        try:
            return _way(_grpc_logits(await next(methods)(request)), logits)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return _refusal(error.details() or "")
            return f"{error.code().name}: {error.details()}"

    async def close() -> None:
        await asyncio.gather(*(channel.close() for channel in channels))

    return send, close


def http_sender(url: str, photos: list[dict[str, Any]]) -> tuple[Send, Callable[[], Awaitable[Any]]]:
    """Sends photos to Triton over HTTP."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    requests = itertools.cycle([(*_http_request(photo["photo"]), photo["logits"]) for photo in photos])
    path = f"{url}/v2/models/car_analyzer/infer"

    async def send() -> str:
        body, headers, logits = next(requests)
        try:
            async with session.post(path, data=body, headers=headers) as response:
                if response.status == 200:
                    return _way(_json_logits(await response.json(content_type=None)), logits)
                text = await response.text()
                return _refusal(text) if response.status == 503 else f"status {response.status}: {text}"
        except (aiohttp.ClientError, OSError) as error:
            return f"{type(error).__name__}: {error}"

    return send, session.close


def gateway_sender(url: str, photos: list[dict[str, Any]]) -> tuple[Send, Callable[[], Awaitable[Any]]]:
    """Sends photos to a gateway."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    bodies = itertools.cycle([photo["photo"] for photo in photos])

    async def send() -> str:
        try:
            async with session.post(
                f"{url}/analyze", data=next(bodies), headers={"Content-Type": "image/jpeg"}
            ) as response:
                answer = await response.json(content_type=None)
                if response.status in (503, 504) and list(answer) == ["error"]:
                    return "refused" if response.status == 503 else "expired"
                return "answered" if response.status == 200 else f"status {response.status}: {answer}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    return send, session.close


SENDERS = {"grpc": grpc_sender, "http": http_sender, "gateway": gateway_sender}


def _grpc_request(photo: bytes) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="car_analyzer")
    tensor = request.inputs.add(name="image", datatype="BYTES")
    tensor.shape.extend([1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(photo)) + photo)
    return bytes(request.SerializeToString())


def _http_request(photo: bytes) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(photo) + 4}}
    header = json.dumps({"inputs": [tensor]}).encode()
    body = b"".join((header, struct.pack("<I", len(photo)), photo))
    return body, {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}


def _grpc_logits(answer: bytes) -> dict[str, Any]:
    response = service_pb2.ModelInferResponse.FromString(answer)
    rows = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name.removesuffix("_logits"): np.frombuffer(row, np.float32) for output, row in rows}


def _json_logits(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"].removesuffix("_logits"): output["data"] for output in answer["outputs"]}


def _way(found: dict[str, Any], known: dict[str, Any]) -> str:
    agree = set(found) == set(known) and all(np.allclose(found[h], known[h], rtol=0, atol=TOLERANCE) for h in known)
    return "answered" if agree else "wrong"


def _refusal(text: str) -> str:
    lowered = text.lower()
    return "refused" if REFUSED in lowered else "expired" if EXPIRED in lowered else f"UNAVAILABLE: {text}"


async def watch(send: Send, seconds: float) -> dict[str, Any]:
    """Sends a few requests, steadily; their figures."""
    phase, waiting = await offer(send, WITNESS_RATE, seconds)
    if waiting:
        await asyncio.wait(waiting)
    return phase.to_dict()


async def overload(send: Send, arguments: argparse.Namespace) -> dict[str, Any]:
    """All phases; their figures by name."""
    warm = arguments.warm
    await ask_steadily(send, arguments.workers, warm / 2)  # not counted: buffers grow, connections are made
    alone = await ask_steadily(send, 1, warm)
    before = await ask_steadily(send, arguments.workers, warm)
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--witness"]
    witness = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    storm, waiting = await offer(send, before.rate(0, warm) * arguments.factor, arguments.seconds)
    after = await ask_steadily(send, arguments.workers, arguments.after)
    if waiting:
        await asyncio.wait(waiting)
    calm = await ask_steadily(send, arguments.workers, warm / 2)
    seen, _ = await witness.communicate()
    # What was still waiting when the storm ended is work, too.
    ends = [*after.ends, *(end + storm.start - after.start for end in storm.ends)]
    rates = [sum(second <= end < second + 2 for end in ends) / 2 for second in range(int(arguments.after) - 1)]
    phases = {"alone": alone, "before": before, "storm": storm, "after": after, "calm": calm}
    figures = {name: phase.to_dict() for name, phase in phases.items()}
    return {"rates_after": rates, "witness": json.loads(seen), **figures}


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command prints."""
    with open(arguments.photos, encoding="utf-8") as file:  # noqa: ASYNC230, PTH123 - before anything is measured
        photos = [{**photo, "photo": base64.b64decode(photo["photo"])} for photo in json.load(file)]
    send, close = SENDERS[arguments.kind](arguments.url, photos)
    figures = await (watch(send, arguments.seconds) if arguments.witness else overload(send, arguments))
    await close()
    return figures


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m reliability.storm", description=__doc__)
    parser.add_argument("kind", choices=SENDERS)
    parser.add_argument("url")
    parser.add_argument("photos", help="JSON: a list of {photo: base64, logits}")
    parser.add_argument("--workers", type=int, default=16, help="in flight, to find out what the service can take")
    parser.add_argument("--warm", type=float, default=6.0, metavar="S", help="for each of the phases before the storm")
    parser.add_argument("--factor", type=float, default=10.0, help="how much more is offered")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of the storm")
    parser.add_argument("--witness", action="store_true", help="ask a little, beside a storm")
    parser.add_argument("--after", type=float, default=6.0, metavar="S")
    # Each request that waits over HTTP has a connection of its own.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
