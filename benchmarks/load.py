"""Sends photos and times the answers. Runs as processes of its own: `python -m benchmarks.load JSON`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from .clients import CLIENTS, READERS, SHARED
from .rivals.reading import HEADS, LABELS

# How far a probability may be from that of exact decoding and resizing: what scaled decoding changes.
TOLERANCE = 0.0002


@dataclass(frozen=True)
class Load:
    """What to send.

    Attributes:
        client: A key of `CLIENTS`.
        url: The address of the service.
        photos: A folder of JPEGs; "" for a client that needs none.
        clients: How many there are in each process; each has one request in flight.
        seconds: How long is measured.
        warm_up: Seconds of load before that.
        batch: Photos in a request, for the clients `grpc` and `pixels`.
        rate: Photos a second from each process, however long answers take. None: each client sends its next request
            when it has the answer to the last.
        expected: A file with the right answer for each photo: others count as errors. "": answers are not looked at.
    """

    client: str
    url: str
    photos: str
    clients: int = 8
    seconds: float = 5
    warm_up: float = 2
    batch: int = 1
    rate: float | None = None
    expected: str = ""


@dataclass(frozen=True)
class Answers:
    """What came back.

    Attributes:
        rate: Photos a second.
        p50: Median latency, milliseconds.
        p99: Likewise, the 99th percentile.
        errors: What came in place of right answers, the first twenty of each process.
        photos: How many were answered.
        cpu_ms: Milliseconds of processor time that the load's own processes spent on a photo.
    """

    rate: float
    p50: float
    p99: float
    errors: list[str]
    photos: int
    cpu_ms: float


def run(load: Load, processes: int = 1) -> Answers:
    """Sends from processes of its own: they do not share Python's lock with what is measured, or with each other.

    Raises:
        RuntimeError: A process failed, or no request was answered.
    """
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(load))]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("a process of the load ended with an error")
    found = [json.loads(output) for output in outputs]
    latencies = [latency for one in found for latency in one["latencies_ms"]]
    errors = [error for one in found for error in one["errors"]]
    if not latencies:
        raise RuntimeError(f"no answer came within {load.seconds:g} s: {(errors or ['no error either'])[0]}")
    photos = load.batch * len(latencies)
    cpu_ms = 1000 * sum(one["cpu_s"] for one in found) / photos
    return Answers(photos / load.seconds, *percentiles(latencies), errors, photos, cpu_ms)


def percentiles(values: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


def send(load: Load) -> dict[str, object]:
    """Sends from threads of this process: latencies in milliseconds, errors, processor seconds."""
    photos = [file.read_bytes() for file in sorted(Path(load.photos).iterdir())] if load.photos else []
    objects = 1 if load.client in SHARED else load.clients
    clients = [CLIENTS[load.client](load.url, photos, load.batch) for _ in range(objects)]
    answers: list[tuple[int, object, float]] = []
    errors: list[str] = []
    start = time.perf_counter() + 0.1
    begin = start + load.warm_up
    end = begin + load.seconds
    interval = load.clients * load.batch / load.rate if load.rate else 0.0

    def drive(number: int) -> None:
        ask, due = clients[number % objects], start + interval * number / load.clients
        while (sent := due if load.rate else time.perf_counter()) < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                answer = ask(number)
            except Exception as error:
                errors.append(repr(error)[:300])
                time.sleep(0.01)
            else:
                answered = time.perf_counter()
                # At a rate, a latency counts from the moment when it was due, even if the client sent it late.
                if begin <= (sent if load.rate else answered) < end:
                    answers.append((number, answer, 1000 * (answered - sent)))
            number += 1
            due += interval

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(load.clients)]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begin - time.perf_counter()))
    spent = time.process_time()
    time.sleep(max(0.0, end - time.perf_counter()))
    spent = time.process_time() - spent
    for thread in threads:
        thread.join()
    if load.expected:
        expected = json.loads(Path(load.expected).read_text(encoding="utf-8"))
        read = READERS[load.client]
        right = [is_right(read(answer), expected[number % len(photos)]) for number, answer, _ in answers]
        errors += [f"wrong answer: {answers[i][1]!r}"[:300] for i, true in enumerate(right) if not true]
        answers = list(compress(answers, right))
    return {"latencies_ms": [latency for *_, latency in answers], "errors": errors[:20], "cpu_s": spent}


def is_right(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether an answer gives each class the expected probability."""
    return all(abs(_first(answer, head) - _first(expected, head)) <= TOLERANCE for head in HEADS)


def _first(answer: dict[str, Any], head: str) -> float:
    """The probability of a head's first class."""
    confidence: float = answer[f"{head}Confidence"]
    return confidence if answer[head] == LABELS[head][0] else 1 - confidence


if __name__ == "__main__":
    print(json.dumps(send(Load(**json.loads(sys.argv[1])))))
