"""An open-loop load generator: sends at a given rate whether or not answers come, and retries nothing.

It is a process of its own, so that it does not wait for the process that measures. It first measures the service's
capacity, then offers a multiple of that, and then measures how the service recovers. A second process, the probe, sends
a few requests during the overload and measures latencies: this one is too busy to read answers in time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import pickle
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import grpc  # type: ignore[import-untyped]
import numpy as np
from tritonclient.grpc import service_pb2

from car_analyzer.triton_messages import Cause, has_cause

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .reference import ReferencePhoto

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# Longer than all queues together: an answer that is not there by then never comes. Nothing is cancelled before.
PATIENCE_S = 45.0
TICK_S = 0.005
CHANNELS = 4
# Each may have a connection of its own. More are not sent, and not counted as offered.
MOST_IN_FLIGHT = 4000
# Requests a second: enough for a percentile, and too few to matter.
PROBE_RATE = 20.0
QUEUE_FULL = "exceeds maximum queue size"
EXPIRED = "timeout expired"

Send = Callable[[], Awaitable[str]]
"""Sends one request; returns its result, as `Phase.results` counts it."""


@dataclass
class Phase:
    """The requests of one phase.

    Attributes:
        start: On the monotonic clock of this machine.
        sending: For how many seconds requests were sent.
        results: How many ended in each way: `answered`, `rejected` (the queue is full), `expired` (it waited in a queue
            for too long), `interrupted` (a process of Triton died; clients send again), `unanswered`, `wrong`, or an
            error.
        seconds: How long each took, by result.
        ends: When each correct answer came, in seconds since the start.
    """

    start: float = field(default_factory=time.monotonic)
    sending: float = 0.0
    results: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)

    async def add(self, send: Send) -> None:
        """Sends one request and records its result."""
        start = time.monotonic()
        try:
            result = await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(send())), PATIENCE_S)
        except asyncio.TimeoutError:
            result = "unanswered"
        end = time.monotonic()
        self.results[result] += 1
        self.seconds.setdefault(result, []).append(end - start)
        if result == "answered":
            self.ends.append(end - self.start)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        percentiles = {
            result: dict(zip(("p50", "p99", "max"), np.percentile(seconds, (50, 99, 100)).tolist(), strict=True))
            for result, seconds in self.seconds.items()
        }
        return {
            "start": self.start,
            "sending": self.sending,
            "sent": self.results.total(),
            "results": dict(self.results),
            "seconds": percentiles,
            "rate": self.rate(0, self.sending),
        }

    def rate(self, start: float, end: float) -> float:
        """Correct answers a second between two moments, in seconds since the start."""
        return sum(start <= moment < end for moment in self.ends) / (end - start) if end > start else 0.0


async def send_steadily(send: Send, workers: int, seconds: float) -> Phase:
    """Keeps so many requests in flight."""
    phase = Phase()

    async def work() -> None:
        while time.monotonic() < phase.start + seconds:
            await phase.add(send)

    await asyncio.gather(*(work() for _ in range(workers)))
    phase.sending = seconds
    return phase


async def send_at_rate(send: Send, rate: float, seconds: float) -> tuple[Phase, set[asyncio.Task[None]]]:
    """Sends so many requests a second, whether or not answers come; also returns those that are still in flight."""
    phase = Phase()
    in_flight: set[asyncio.Task[None]] = set()
    sent = 0
    while (passed := time.monotonic() - phase.start) < seconds:
        while sent < passed * rate:
            sent += 1
            if len(in_flight) < MOST_IN_FLIGHT:
                task = asyncio.create_task(phase.add(send))
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)
        await asyncio.sleep(TICK_S)
    phase.sending = time.monotonic() - phase.start
    return phase, in_flight


@contextlib.asynccontextmanager
async def grpc_sender(url: str, photos: list[ReferencePhoto]) -> AsyncIterator[Send]:
    """Sends photos to Triton over gRPC."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channels = [grpc.aio.insecure_channel(urlsplit(url).netloc, options) for _ in range(CHANNELS)]
    methods = itertools.cycle([channel.unary_unary(METHOD) for channel in channels])
    requests = itertools.cycle([(_grpc_request(photo.content), photo) for photo in photos])

    async def send() -> str:
        request, photo = next(requests)
        try:
            return "answered" if photo.matches(_logits(await next(methods)(request))) else "wrong"
        except grpc.aio.AioRpcError as error:
            text = str(error.details())
            if error.code() is grpc.StatusCode.UNAVAILABLE and QUEUE_FULL in text.lower():
                return "rejected"
            if error.code() is grpc.StatusCode.UNAVAILABLE and EXPIRED in text.lower():
                return "expired"
            if has_cause(text, Cause.BACKEND_RESTARTING):
                return "interrupted"
            return f"{error.code().name}: {text}"

    yield send
    await asyncio.gather(*(channel.close() for channel in channels))


@contextlib.asynccontextmanager
async def gateway_sender(url: str, photos: list[ReferencePhoto]) -> AsyncIterator[Send]:
    """Sends photos to a gateway."""
    turns = itertools.cycle(photos)
    async with aiohttp.ClientSession(
        url, connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "image/jpeg"}
    ) as session:

        async def send() -> str:
            photo = next(turns)
            try:
                async with session.post("/analyze", data=photo.content) as response:
                    answer = await response.json(content_type=None)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"
            if response.status == 200:
                return "answered" if photo.matches_json(answer) else "wrong"
            known = {503: "rejected", 504: "expired"} if "error" in answer else {}
            return known.get(response.status, f"status {response.status}: {answer}")

        yield send


SENDERS = {"grpc": grpc_sender, "gateway": gateway_sender}


def _grpc_request(photo: bytes) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="car_analyzer")
    request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(photo)) + photo)
    return bytes(request.SerializeToString())


def _logits(answer: bytes) -> dict[str, Any]:
    response = service_pb2.ModelInferResponse.FromString(answer)
    rows = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name.removesuffix("_logits"): np.frombuffer(row, np.float32) for output, row in rows}


async def probe(send: Send, seconds: float) -> dict[str, Any]:
    """Sends a few requests, steadily; their figures."""
    phase, in_flight = await send_at_rate(send, PROBE_RATE, seconds)
    if in_flight:
        await asyncio.wait(in_flight)
    return phase.to_dict()


async def overload(send: Send, arguments: argparse.Namespace) -> dict[str, Any]:
    """All phases; their figures by name."""
    warm, workers = arguments.warm, arguments.workers
    await send_steadily(send, workers, warm / 2)  # not counted: buffers grow, connections are made
    alone = await send_steadily(send, 1, warm)
    before = await send_steadily(send, workers, warm)
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--probe"]
    probing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    peak, in_flight = await send_at_rate(send, before.rate(0, warm) * arguments.factor, arguments.seconds)
    after = await send_steadily(send, workers, arguments.after)
    if in_flight:
        await asyncio.wait(in_flight)
    calm = await send_steadily(send, workers, warm / 2)
    probed, _ = await probing.communicate()
    # Requests that were in flight when the overload ended are work, too.
    ends = [*after.ends, *(end + peak.start - after.start for end in peak.ends)]
    rates = [sum(second <= end < second + 2 for end in ends) / 2 for second in range(int(arguments.after) - 1)]
    phases = {"alone": alone, "before": before, "overload": peak, "calm": calm}
    figures = {name: phase.to_dict() for name, phase in phases.items()}
    return {"rates_after": rates, "probe": json.loads(probed), **figures}


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command prints."""
    photos = pickle.loads(arguments.photos.read_bytes())  # noqa: S301 - written by `overload`
    async with SENDERS[arguments.kind](arguments.url, photos) as send:
        return await (probe(send, arguments.seconds) if arguments.probe else overload(send, arguments))


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m reliability.open_loop", description=__doc__)
    parser.add_argument("kind", choices=SENDERS)
    parser.add_argument("url")
    parser.add_argument("photos", type=Path, help="a pickled list of ReferencePhoto")
    parser.add_argument("--workers", type=int, default=16, help="requests in flight, to measure the capacity")
    parser.add_argument("--warm", type=float, default=6.0, metavar="S", help="of each phase before the overload")
    parser.add_argument("--factor", type=float, default=10.0, help="how many times the capacity is offered")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of the overload")
    parser.add_argument("--probe", action="store_true", help="send a few requests beside an overload")
    parser.add_argument("--after", type=float, default=6.0, metavar="S", help="of the phase after the overload")
    # Each gateway request in flight has a connection of its own.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
