"""Where the time goes: processor milliseconds of each process for a photo, beside what the work itself takes.

Unlike rates, these hardly change when something else runs on the machine.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from car_analyzer_server import Server, Settings
from reliability.service import Gateway

from .command_line import SIZES, make_parser
from .load import Load, run
from .materials import make_materials, make_photos
from .processor_time import processor_seconds
from .report import as_table
from .systems import CORES

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

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
        url = {"grpc": server.grpc_url, "http": server.http_url}.get(load.client, "")
        gateway = stack.enter_context(Gateway(server.grpc_url)) if load.client == "upload" else None
        load = replace(load, url=f"{gateway.url}/analyze" if gateway else url)
        run(replace(load, seconds=2))
        before = _seconds(server, gateway)
        photos = run(replace(load, warm_up=0)).photos
        return {name: 1000 * spent / photos for name, spent in (_seconds(server, gateway) - before).items()}


def _seconds(server: Server, gateway: Gateway | None) -> Counter[str]:
    seconds = processor_seconds(server.pid)
    if gateway:
        seconds["gateway"] = sum(psutil.Process(gateway.pid).cpu_times()[:2])
    return seconds


if __name__ == "__main__":
    sys.exit(main())
