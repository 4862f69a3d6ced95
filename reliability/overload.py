"""Offers a real service ten times its capacity, and checks that it stays bounded and recovers.

Queues and memory must stay bounded, every request must be answered or rejected in time, rejections must come quickly,
and the service must be at full speed again within two seconds after the overload.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from car_analyzer_export.preprocess.backlog import CHECKED_EVERY
from car_analyzer_server.capacity import set_decoding_processes
from car_analyzer_server.cores import cores

from .harness import Row, add_repository, export_demo, make_parser, report
from .processes import die_with_parent, usage
from .reference import reference_photos
from .service import Gateway, Service, read_metric

# Not Triton's HTTP: version 2.51 itself loses answers when it rejects hundreds of requests in one instant.
KINDS = ("grpc", "gateway")
EPILOG = """\
examples:
  python -m reliability.overload
  python -m reliability.overload --only grpc --seconds 10
"""
EXPECTED = ("answered", "rejected", "expired", "interrupted")
SAMPLE_S = 1.0
# By then, an overload has taken the memory that it needs at its beginning.
SETTLED_S = 20.0
MEMORY_GROWTH, MEMORY_SLACK = 0.10, 16_000_000
REJECTION_S = 2.5
RECOVERY_S, RECOVERED = 2, 0.8


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = make_parser("overload", __doc__, EPILOG)
    parser.add_argument("--only", action="append", choices=KINDS, help="way in; may be repeated; default: all")
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="of each overload; default: %(default)g"
    )
    parser.add_argument("--factor", type=float, default=10.0, help="how many times the capacity; default: %(default)g")
    add_repository(parser)
    arguments = parser.parse_args(argv)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="car-analyzer-overload-") as folder:
        repository = arguments.repository or export_demo(Path(folder) / "model_repository")
        for kind in dict.fromkeys(arguments.only or KINDS):
            print(f"Overloading {kind} for {arguments.seconds:g} s ...", file=sys.stderr, flush=True)
            rows += try_overload(kind, repository, seconds=arguments.seconds, factor=arguments.factor)
    return report(rows)


def try_overload(
    kind: str, repository: Path, *, seconds: float, factor: float = 10.0, around: float = 6.0
) -> list[Row]:
    """Overloads a service of its own over one way in; returns a row for each promise.

    Args:
        kind: The way in.
        repository: What it serves.
        seconds: Of the overload.
        factor: How many times the capacity is offered.
        around: Of each phase before and after the overload, in seconds.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="car-analyzer-overload-")))
        service = stack.enter_context(Service(repository))
        url, pids = service.addresses["grpc"], [service.pid]
        if kind == "gateway":
            front = stack.enter_context(Gateway(url))
            url = front.url
            pids.append(front.pid)
        photos = folder / "photos.pickle"
        photos.write_bytes(pickle.dumps(list(reference_photos())))
        with Sampler(service, pids) as sampler:
            command = [sys.executable, "-m", "reliability.open_loop", kind, url, str(photos)]
            command += [f"--seconds={seconds}", f"--factor={factor}", f"--warm={around}", f"--after={around}"]
            ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, preexec_fn=die_with_parent)
        restarts = [*service.said("Starting it again"), *service.said("A process of")]
    return judge(kind, json.loads(ran.stdout), sampler, Limits(repository), restarts)


class Limits:
    """What the configurations promise.

    Attributes:
        waiting: How many requests may wait for the first step, with those that it works on.
        later: How many may wait for a network: the processes that decode stop at two batches, and each checks this only
            now and then.
        queue_s: For how long a request may wait altogether, in seconds: for the first step, and for a head.
    """

    def __init__(self, repository: Path) -> None:
        configs = {
            file.parent.name: text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
            for file in repository.glob("*/config.pbtxt")
        }
        first = configs["preprocess"]
        set_decoding_processes(first, cores())
        policies = {name: config.dynamic_batching.default_queue_policy for name, config in configs.items()}
        times = {name: policy.default_timeout_microseconds / 1e6 for name, policy in policies.items()}
        instances = sum(group.count for group in first.instance_group)
        self.waiting = policies["preprocess"].max_queue_size + first.max_batch_size * instances
        self.later = 2 * first.max_batch_size + CHECKED_EVERY * instances
        self.queue_s = times.pop("preprocess") + max(times.values())


class Sampler:
    """Samples queue and memory once a second. A context manager.

    Attributes:
        queue: How many requests waited for the first step, each time.
        later: How many waited for a network, each time; for the one with most.
        memory: When, on the monotonic clock, and how many bytes all processes held.
    """

    def __init__(self, service: Service, pids: list[int]) -> None:
        self.queue: list[int] = []
        self.later: list[int] = []
        self.memory: list[tuple[float, int]] = []
        self._url = service.addresses["metrics"]
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def growth(self, start: float, end: float) -> tuple[int, int]:
        """The memory after one moment, and before another one."""
        sizes = [size for moment, size in self.memory if start <= moment <= end] or [0]
        return sizes[0], sizes[-1]

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            # Under overload the metrics can time out; a missing sample proves nothing.
            with contextlib.suppress(OSError):
                counts = pending_requests(self._url)
                self.queue.append(counts.pop("preprocess", 0))
                self.later.append(max(counts.values(), default=0))
            with contextlib.suppress(psutil.NoSuchProcess):
                self.memory.append((time.monotonic(), sum(usage(pid).memory for pid in self._pids)))


def judge(kind: str, phases: dict[str, Any], sampler: Sampler, limits: Limits, restarts: list[str]) -> list[Row]:
    """Compares the figures, and the log's lines about restarts, with what is promised."""
    names = ("alone", "before", "overload", "probe", "calm")
    alone, before, overload, probe, calm = (phases[name] for name in names)
    rows = []

    def add(promise: str, tried: int, lost: int, note: str) -> None:
        rows.append(Row(f"{kind} {promise}", tried, lost, note))

    results = overload["results"]
    offered = overload["sent"] / overload["sending"] / max(before["rate"], 1e-9)
    lost = sum(count for result, count in results.items() if result not in EXPECTED)
    what = ", ".join(f"{count:,} {result[:120]}" for result, count in results.items())
    add("requests", overload["sent"], lost, f"{offered:.1f} x {before['rate']:.0f}/s: {what}")

    for promise, waiting, limit in (("queue", sampler.queue, limits.waiting), ("backlog", sampler.later, limits.later)):
        longer = sum(count > limit for count in waiting)
        add(promise, len(waiting), longer, f"at most {max(waiting, default=0)} waiting, {limit} may")

    unloaded = alone["seconds"].get("answered", {}).get("p99", 0.0)
    bound = 3 * unloaded + limits.queue_s
    latencies = probe["seconds"]
    slow = [result for result, figures in latencies.items() if result != "rejected" and figures["p99"] > bound]
    accepted = latencies.get("answered", {"p50": 0.0, "p99": 0.0})
    note = f"p50 {accepted['p50']:.2f} s, p99 {accepted['p99']:.2f} s of {bound:.1f} s; unloaded {unloaded:.2f} s"
    add("answers", probe["results"].get("answered", 0), len(slow), note)
    if rejected := latencies.get("rejected"):
        note = f"p50 {rejected['p50']:.3f} s, p99 {rejected['p99']:.2f} s, slowest {rejected['max']:.2f} s"
        add("rejections", probe["results"]["rejected"], int(rejected["p99"] > REJECTION_S), note)

    settled = overload["start"] + min(SETTLED_S, overload["sending"] / 2)
    first, last = sampler.growth(settled, overload["start"] + overload["sending"])
    grown = last > first * (1 + MEMORY_GROWTH) + MEMORY_SLACK
    add("memory", len(sampler.memory), int(grown), f"{first >> 20} MiB, at the end {last >> 20} MiB")

    rates = phases["rates_after"]
    slowed = max(rates[RECOVERY_S:], default=0.0) < RECOVERED * before["rate"]
    note = f"{', '.join(f'{rate:.0f}' for rate in rates)} a second, before the overload {before['rate']:.0f}"
    add("recovery", len(rates), int(slowed), note)
    add("afterwards", calm["sent"], calm["sent"] - calm["results"].get("answered", 0), f"{calm['rate']:.0f} a second")
    interrupted = results.get("interrupted", 0)
    add("faults", 1, len(restarts) or interrupted, restarts[0] if restarts else f"{interrupted} requests interrupted")
    return rows


def pending_requests(metrics: str) -> dict[str, int]:
    """How many requests wait for each model."""
    samples = read_metric(metrics, "nv_inference_pending_request_count", timeout=5)
    return {labels["model"]: int(value) for labels, value in samples}


if __name__ == "__main__":
    sys.exit(main())
