"""Offers a real service ten times what it can take, and looks whether it stays what it was.

Queues and memory must stay bounded, every request must be answered or refused in time, refusals must come quickly, and
the service must be at full speed again within two seconds after the storm.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from .faults import export_demo
from .known import known_photos
from .processes import usage
from .service import Service, die_with_parent
from .table import Row, report

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("grpc", "gateway", "http")
# Over HTTP, Triton 2.51 itself loses answers when it refuses hundreds of requests in one instant.
JUDGED = ("grpc", "gateway")
EPILOG = """\
examples:
  python -m reliability.overload
  python -m reliability.overload --only grpc --seconds 10

exit codes: 0 everything as promised, 1 something was not, 2 wrong usage
"""
SAMPLE_S = 1.0
# When the memory that a storm takes at its beginning has been taken.
SETTLED_S = 20.0
MEMORY_GROWTH, MEMORY_SLACK = 0.10, 16_000_000
REFUSAL_S = 2.5
RECOVERY_S, RECOVERED = 2, 0.8


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.overload",
        description=(__doc__ or "").partition("\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", choices=KINDS, help=f"way in; may be repeated; default: {' and '.join(JUDGED)}"
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of each storm; default: %(default)g")
    parser.add_argument("--factor", type=float, default=10.0, help="how much more is offered; default: %(default)g")
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="one with the demo models; default: export them to a folder"
    )
    arguments = parser.parse_args(argv)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="car-analyzer-overload-") as folder:
        repository = arguments.repository or export_demo(Path(folder) / "model_repository")
        for kind in dict.fromkeys(arguments.only or JUDGED):
            print(f"Overloading {kind} for {arguments.seconds:g} s ...", file=sys.stderr, flush=True)
            rows += try_overload(kind, repository, seconds=arguments.seconds, factor=arguments.factor)
    return report(rows)


def try_overload(kind: str, repository: Path, *, seconds: float, factor: float = 10.0, warm: float = 6.0) -> list[Row]:
    """Overloads a service of its own over one way in; returns a row for each promise."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="car-analyzer-overload-")))
        service = stack.enter_context(Service(repository))
        url, pids = service.addresses.get(kind), [service.pid]
        if kind == "gateway":
            gateway = stack.enter_context(gateway_before(service.addresses["grpc"]))
            url, pid = gateway
            pids.append(pid)
        photos = [{"photo": base64.b64encode(known.photo).decode(), "logits": known.logits} for known in known_photos()]
        (folder / "photos.json").write_text(json.dumps(photos))
        with Samples(service, pids) as samples:
            command = [sys.executable, "-m", "reliability.storm", kind, str(url), str(folder / "photos.json")]
            command += [f"--seconds={seconds}", f"--factor={factor}", f"--warm={warm}"]
            ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, preexec_fn=die_with_parent)
        said = service.said()
    return [*judge(kind, json.loads(ran.stdout), samples, Limits(repository)), _row_of_restarts(kind, said)]


class Limits:
    """What the configurations promise.

    Attributes:
        waiting: How many requests may wait for the first step, with those that it works on.
        queue_s: For how long a request may wait in all, in seconds: for the first step, and for a head.
    """

    def __init__(self, repository: Path) -> None:
        configs = {
            file.parent.name: text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
            for file in repository.glob("*/config.pbtxt")
        }
        first = configs["preprocess"]
        policies = {name: config.dynamic_batching.default_queue_policy for name, config in configs.items()}
        times = {name: policy.default_timeout_microseconds / 1e6 for name, policy in policies.items()}
        instances = sum(group.count for group in first.instance_group)
        self.waiting = policies["preprocess"].max_queue_size + first.max_batch_size * instances
        self.queue_s = times.pop("preprocess") + max(times.values())


class Samples:
    """Looks at queue and memory from time to time. A context manager.

    Attributes:
        queue: How many requests waited for the first step, each time.
        later: How many waited for another step, at most.
        memory: When, on the monotonic clock, and how many bytes all processes held.
    """

    def __init__(self, service: Service, pids: list[int]) -> None:
        self.queue: list[int] = []
        self.later = 0
        self.memory: list[tuple[float, int]] = []
        self._url = service.addresses["metrics"]
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Samples:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def growth(self, start: float, end: float) -> tuple[int, int]:
        """The memory after one moment, and before another one."""
        sizes = sorted(self.memory)
        return (
            next((size for moment, size in sizes if moment >= start), 0),
            next((size for moment, size in reversed(sizes) if moment <= end), 0),
        )

    def _look(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                # Under overload the metrics are late, too; a sample that is missing shows nothing.
                counts = waiting(self._url)
                self.queue.append(counts.pop("preprocess", 0))
                self.later = max(self.later, *counts.values(), 0)
            with contextlib.suppress(psutil.NoSuchProcess):
                self.memory.append((time.monotonic(), sum(usage(pid).memory for pid in self._pids)))


def judge(kind: str, phases: dict[str, Any], samples: Samples, limits: Limits) -> list[Row]:
    """Holds the figures against what is promised."""
    names = ("alone", "before", "storm", "witness", "calm")
    alone, before, storm, witness, calm = (phases[name] for name in names)
    answers = storm["answers"]
    offered = storm["sent"] / storm["sending"] / max(before["rate"], 1e-9)
    others = {way: count for way, count in answers.items() if way not in ("answered", "refused", "expired")}
    what = ", ".join(f"{count:,} {way[:120]}" for way, count in answers.items())
    rows = [
        Row(f"{kind} requests", storm["sent"], sum(others.values()), f"{offered:.1f} x {before['rate']:.0f}/s: {what}"),
        Row(
            f"{kind} queue",
            len(samples.queue),
            sum(waiting > limits.waiting for waiting in samples.queue),
            f"at most {max(samples.queue, default=0)} waiting, {limits.waiting} may; {samples.later} for a later step",
        ),
    ]
    unloaded = alone["seconds"].get("answered", {}).get("p99", 0.0)
    bound = 3 * unloaded + limits.queue_s
    seen, counts = witness["seconds"], witness["answers"]
    slow = {way: figures for way, figures in seen.items() if way != "refused" and figures["p99"] > bound}
    accepted = seen.get("answered", {"p50": 0.0, "p99": 0.0})
    rows.append(
        Row(
            f"{kind} answers",
            counts.get("answered", 0),
            len(slow),
            f"p50 {accepted['p50']:.2f} s, p99 {accepted['p99']:.2f} s of {bound:.1f} s; unloaded {unloaded:.2f} s",
        )
    )
    if "refused" in seen:
        refused = seen["refused"]
        rows.append(
            Row(
                f"{kind} refusals",
                counts["refused"],
                int(refused["p99"] > REFUSAL_S),
                f"p50 {refused['p50']:.3f} s, p99 {refused['p99']:.2f} s, slowest {refused['max']:.2f} s",
            )
        )
    settled = storm["start"] + min(SETTLED_S, storm["sending"] / 2)
    first, last = samples.growth(settled, storm["start"] + storm["sending"])
    grown = last > first * (1 + MEMORY_GROWTH) + MEMORY_SLACK
    rows.append(
        Row(f"{kind} memory", len(samples.memory), int(grown), f"{first >> 20} MiB, at the end {last >> 20} MiB")
    )
    rates = phases["rates_after"]
    tired = max(rates[RECOVERY_S:], default=0.0) < RECOVERED * before["rate"]
    disturbed = calm["sent"] - calm["answers"].get("answered", 0)
    note = f"{', '.join(f'{rate:.0f}' for rate in rates)} a second, before the storm {before['rate']:.0f}"
    rows.append(Row(f"{kind} recovery", len(rates), int(tired), note))
    rows.append(Row(f"{kind} afterwards", calm["sent"], disturbed, f"{calm['rate']:.0f} a second"))
    return rows


def _row_of_restarts(kind: str, said: list[str]) -> Row:
    events = [line for line in said if "Starting it again" in line or "A process of" in line]
    return Row(f"{kind} faults", 1, len(events), events[0] if events else "nothing died")


def waiting(metrics: str) -> dict[str, int]:
    """How many requests wait for each model."""
    with urllib.request.urlopen(metrics, timeout=5) as answer:  # noqa: S310 - our own service
        text = answer.read().decode()
    found = re.findall(r'^nv_inference_pending_request_count\{model="([^"]+)"[^}]*\} (\d+)', text, re.MULTILINE)
    return {model: int(count) for model, count in found}


@contextlib.contextmanager
def gateway_before(url: str) -> Iterator[tuple[str, int]]:
    """Starts a gateway before a Triton; gives its URL and process id."""
    command = [sys.executable, "-m", "car_analyzer_gateway", "--port=0", "--json", "--log-level=error", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as gateway:
        assert gateway.stdout is not None  # noqa: S101 - it was opened as a pipe
        try:
            yield json.loads(gateway.stdout.readline())["gateway"], gateway.pid
        finally:
            gateway.terminate()


if __name__ == "__main__":
    sys.exit(main())
