"""What one photo costs on the command line: a call to a running server, and a script that loads PyTorch each time.

They take turns, so that all run on the same machine under the same conditions.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from car_analyzer.command_line import count
from car_analyzer_server import Server, Settings

from .command_line import make_parser
from .materials import make_materials, make_photos
from .systems import RIVALS, environment, prepare

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = "flask_torch"


def main() -> int:
    """Prints the seconds of each, and their ratios, as JSON."""
    parser = make_parser("benchmarks.call", __doc__, network="resnet18")
    parser.add_argument("--calls", type=count, default=7, help="of each; default: %(default)s")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not prepare(SCRIPT, out / "environments"):
        print("PyTorch cannot be installed for the script.", file=sys.stderr)
        return 1
    materials = make_materials(arguments.network, out / "materials")
    photo = str(min(make_photos("s", out).iterdir()))
    with Server(Settings(materials.repository, http_port=0, grpc_port=0, metrics_port=0)) as server:
        ours = [sys.executable, "-m", "car_analyzer", "analyze", photo, "--url"]
        script = [str(out / "environments" / SCRIPT / "bin" / "python"), str(RIVALS / SCRIPT / "once.py"), photo]
        runs = {
            "gRPC": ([*ours, server.grpc_url], dict(os.environ)),
            "HTTP": ([*ours, server.http_url], dict(os.environ)),
            "script with PyTorch": (script, environment(materials)),
        }
        found: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(arguments.calls + 1):
            for name, (command, variables) in runs.items():
                start = time.perf_counter()
                subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=True)
                if number:  # the first run reads files that the next ones find in memory
                    found[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    shares = {
        f"{name}, share of the script": medians[name] / medians["script with PyTorch"] for name in ("gRPC", "HTTP")
    }
    print(json.dumps(medians | shares))
    return 0


if __name__ == "__main__":
    sys.exit(main())
