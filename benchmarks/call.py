"""What one photo costs on the command line: a call to a running server, and a script that loads PyTorch each time.

One in turn after the other, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from car_analyzer_server import Server, Settings

from .environments import prepare
from .materials import make_materials, make_photos
from .systems import RIVALS, environment

SCRIPT = "flask_torch"


def main() -> int:
    """Prints the seconds of both, and their ratio, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.call", description=" ".join((__doc__ or "").split()))
    parser.add_argument("--network", default="resnet18", help="default: %(default)s")
    parser.add_argument("--calls", type=int, default=7, help="of each; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if not prepare({SCRIPT}, out / "environments"):
        print("PyTorch cannot be installed for the script.", file=sys.stderr)
        return 1
    materials = make_materials(arguments.network, out / "materials")
    (photo := out / "photo.jpg").write_bytes(make_photos("s")[0])
    variables = environment(materials, 0) | {"PYTHONPATH": str(RIVALS)}
    with Server(Settings(materials.repository, http_port=0, grpc_port=0, metrics_port=0)) as server:
        ours = [sys.executable, "-m", "car_analyzer", "analyze", str(photo), "--url", server.grpc_url]
        script = [str(out / "environments" / SCRIPT / "bin" / "python"), str(RIVALS / SCRIPT / "once.py"), str(photo)]
        calls = {"car-analyzer analyze": (ours, dict(os.environ)), "script with PyTorch": (script, variables)}
        found: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(arguments.calls + 1):
            for name, (command, its_variables) in calls.items():
                one = _run(command, its_variables)
                if number:  # the first one reads files that the next ones find in memory
                    found[name].append(one)
    ours_s, script_s = (statistics.median(few) for few in found.values())
    print(json.dumps({"car-analyzer analyze": ours_s, "script with PyTorch": script_s, "ratio": ours_s / script_s}))
    return 0


def _run(command: list[str], variables: dict[str, str]) -> float:
    """Seconds from start to end."""
    start = time.perf_counter()
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
