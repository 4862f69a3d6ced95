"""What one photo costs on the command line: a call to a running server, and a script that loads PyTorch each time.

The two take turns, so that both run on the same machine under the same conditions.
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
    """Prints the seconds of both, and their ratio, as JSON."""
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
        ours = [sys.executable, "-m", "car_analyzer", "analyze", photo, "--url", server.grpc_url]
        script = [str(out / "environments" / SCRIPT / "bin" / "python"), str(RIVALS / SCRIPT / "once.py"), photo]
        runs = {
            "car-analyzer analyze": (ours, dict(os.environ)),
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
    ours_s, script_s = medians.values()
    print(json.dumps(medians | {"ratio": ours_s / script_s}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
