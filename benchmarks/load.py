"""Callers that each send their next photo as soon as they have the answer to the last. Runs as a process of its own."""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .clients import CLIENTS, Client

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Prints `{"seconds": ..., "latencies_ms": [...], "errors": [...]}` of what ended within the time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("kind", choices=CLIENTS)
    parser.add_argument("url")
    parser.add_argument("photos", type=Path, help="a pickled list of bytes")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=2, metavar="SECONDS", help="of load that does not count")
    arguments = parser.parse_args()
    photos = pickle.loads(arguments.photos.read_bytes())  # noqa: S301 - our own, just written
    shared = CLIENTS["sdk"](arguments.url, photos) if arguments.kind == "sdk" else None
    clients = [shared or CLIENTS[arguments.kind](arguments.url, photos) for _ in range(arguments.clients)]
    print(json.dumps(measure(clients, len(photos), arguments.warm_up, arguments.seconds)))
    return 0


def measure(clients: list[Client], photos: int, warm_up: float, seconds: float) -> dict[str, object]:
    """Drives all clients at once, for a time that does not count and one that does."""
    start = time.perf_counter() + warm_up
    end = start + seconds
    latencies: list[float] = []
    errors: list[str] = []

    def drive(client: Client, number: int) -> None:
        while (sent := time.perf_counter()) < end:
            try:
                client.ask(number % photos)
            except Exception as error:
                errors.append(repr(error)[:300])
                time.sleep(0.01)
                continue
            if start <= (answered := time.perf_counter()) <= end:
                latencies.append((answered - sent) * 1000)
            number += 1

    drive_all(drive, clients)
    return {"seconds": seconds, "latencies_ms": latencies, "errors": errors[:20]}


def drive_all(drive: Callable[[Client, int], None], clients: list[Client]) -> None:
    """Calls a function with each client and its number, all at once, and waits for all."""
    threads = [threading.Thread(target=drive, args=(client, number)) for number, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
