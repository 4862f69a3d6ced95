"""Where the time goes: processor milliseconds of each process for a photo, beside what the work itself takes.

Unlike rates, these hardly change when something else runs on the machine.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil

from car_analyzer_server import Server, Settings
from reliability.processes import is_stub
from reliability.service import Gateway

from .command_line import SIZES, make_parser
from .load import Load, run
from .materials import make_materials, make_photos
from .report import as_table
from .systems import CORES

CLIENTS = {"gRPC": "grpc", "HTTP": "http", "gateway": "upload"}


def main() -> int:
    """Prints a Markdown table."""
    parser = make_parser("benchmarks.cost", __doc__, seconds=3, network="tiny")
    parser.add_argument("--size", choices=SIZES, default="s", help="of the photos; default: %(default)s")
    arguments = parser.parse_args()
    out: Path = arguments.out
    repository = make_materials(arguments.network, out / "materials").repository
    photos = str(make_photos(arguments.size, out))
    work = run(Load("limit", str(repository), photos, CORES, arguments.seconds)).cpu_ms
    costs = {"the work itself": {"work": work}}
    for way, client in CLIENTS.items():
        costs[way] = _served(repository, Load(client, "", photos, seconds=arguments.seconds))
    columns = list(dict.fromkeys(name for cost in costs.values() for name in cost))
    print(f"Milliseconds of processor time for a photo, {arguments.network}-{arguments.size}:\n")
    rows = [
        (way, *(f"{cost[name]:.2f}" if name in cost else "" for name in columns), f"{sum(cost.values()):.2f}")
        for way, cost in costs.items()
    ]
    print(as_table(("", *columns, "all"), rows))
    return 0


def _served(repository: Path, load: Load) -> dict[str, float]:
    with ExitStack() as stack:
        settings = Settings(repository, http_port=0, grpc_port=0, metrics_port=0, supervised=True)
        server = stack.enter_context(Server(settings))
        triton = psutil.Process(server.pid)
        processes = {triton: "Triton", **{stub: _model(stub) for stub in triton.children() if is_stub(stub)}}
        url = {"grpc": server.grpc_url, "http": server.http_url}.get(load.client, "")
        if load.client == "upload":
            gateway = stack.enter_context(Gateway(server.grpc_url))
            url, processes[psutil.Process(gateway.pid)] = f"{gateway.url}/analyze", "gateway"
        load = replace(load, url=url)
        run(replace(load, seconds=2))
        before = {process: sum(process.cpu_times()[:2]) for process in processes}
        photos = run(replace(load, warm_up=0)).photos
        cost = dict.fromkeys(processes.values(), 0.0)
        for process, name in processes.items():
            cost[name] += 1000 * (sum(process.cpu_times()[:2]) - before[process]) / photos
    return cost


def _model(stub: psutil.Process) -> str:
    return Path(stub.cmdline()[1]).parents[1].name


if __name__ == "__main__":
    sys.exit(main())
