"""Where the time goes: processor milliseconds that each process spends on a photo, beside what the work itself takes.

Unlike rates, these hardly change when something else runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from car_analyzer_server import Server, Settings
from reliability.processes import is_stub
from reliability.service import Gateway

from .materials import make_materials, make_photos
from .systems import environment

if TYPE_CHECKING:
    from .materials import Materials

WAYS = {"gRPC": "grpc", "HTTP": "http", "gateway": "upload"}
WARM_UP_S = 2.0


def main() -> int:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="tiny", help="default: %(default)s")
    parser.add_argument("--size", default="s", help="of the photos; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    materials = make_materials(arguments.network, out / "materials")
    (file := out / f"photos-{arguments.size}.pickle").write_bytes(pickle.dumps(make_photos(arguments.size)))
    costs = {"the work itself": {"work": _limit(materials, file, arguments.seconds)}}
    for way in WAYS:
        costs[way] = _served(materials, way, file, arguments.seconds)
    columns = list(dict.fromkeys(name for cost in costs.values() for name in cost))
    print(f"Milliseconds of processor time for a photo, {arguments.network}-{arguments.size}:\n")
    print("| | " + " | ".join(columns) + " | all |\n" + "|---" * (len(columns) + 2) + "|")
    for way, cost in costs.items():
        cells = [f"{cost[name]:.2f}" if name in cost else "" for name in columns]
        print(f"| {way} | " + " | ".join(cells) + f" | {sum(cost.values()):.2f} |")
    return 0


def _limit(materials: Materials, photos: Path, seconds: float) -> float:
    variables = environment(materials, 0) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["benchmarks.limit", str(photos)]
    # What starting costs, is taken off: a run of next to no time has nothing else.
    none, _ = _run([*command, "--seconds=0.01", "--warm-up=0.01"], variables)
    spent, answered = _run([*command, f"--seconds={seconds}", "--warm-up=0"], variables)
    return 1000 * (spent - none) / answered


def _served(materials: Materials, way: str, photos: Path, seconds: float) -> dict[str, float]:
    with ExitStack() as stack:
        settings = Settings(materials.repository, http_port=0, grpc_port=0, metrics_port=0, supervised=True)
        server = stack.enter_context(Server(settings))
        triton = psutil.Process(server.pid)
        processes = {triton: "Triton", **{stub: _model(stub) for stub in triton.children() if is_stub(stub)}}
        url = {"gRPC": server.grpc_url, "HTTP": server.http_url}.get(way, "")
        if way == "gateway":
            gateway = stack.enter_context(Gateway(server.grpc_url))
            url, processes[psutil.Process(gateway.pid)] = f"{gateway.url}/analyze", "gateway"
        command = ["benchmarks.load", WAYS[way], url, str(photos)]
        _run([*command, f"--seconds={WARM_UP_S}"])
        before = {process: sum(process.cpu_times()[:2]) for process in processes}
        _, answered = _run([*command, f"--seconds={seconds}", "--warm-up=0"])
        cost = dict.fromkeys(processes.values(), 0.0)
        for process, name in processes.items():
            cost[name] += 1000 * (sum(process.cpu_times()[:2]) - before[process]) / answered
    return cost


def _run(command: list[str], variables: dict[str, str] | None = None) -> tuple[float, int]:
    """Runs a module to its end; returns the processor seconds it took, and how many photos were answered."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-m", *command], env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, len(json.loads(ended.stdout)["latencies_ms"])


def _model(stub: psutil.Process) -> str:
    return Path(stub.cmdline()[1]).parents[1].name


if __name__ == "__main__":
    sys.exit(main())
