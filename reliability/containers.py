"""Starts the containers of docker-compose.yml, kills processes in them under load, and counts lost photos.

Needs a Docker engine. The ports are those of docker-compose.yml.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from .harness import Row, make_parser, report
from .load import Load, gateway
from .reference import reference_photos

ROOT = Path(__file__).parents[1]
COMPOSE = ("docker", "compose", "--profile", "cpu")
TRITON = "triton-cpu"
# By process name, of which the kernel keeps 15 characters.
VICTIMS = {
    "a decoding process": "triton_python_b",
    "Triton": "tritonserver",
    "serve, and with it the container": "car-analyzer",
}
# In the container: slim images have no pkill.
KILL = """
import os, pathlib, sys
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if (process / "comm").read_text().strip() == sys.argv[1]:
        os.kill(int(process.name), 9)
        break
else:
    sys.exit(f"there is no {sys.argv[1]}")
"""


def main() -> int:
    """Runs the trial; returns its exit code."""
    parser = make_parser("containers", __doc__)
    parser.add_argument("--build", action="store_true", help="build the images first")
    parser.add_argument("--keep", action="store_true", help="leave the containers running")
    arguments = parser.parse_args()
    try:
        start = time.monotonic()
        _compose("up", "--wait", "--build" if arguments.build else "--no-build")
        print(f"healthy after {time.monotonic() - start:.0f} s", file=sys.stderr)
        return report([_gateway(), *(_kill(name, victim) for name, victim in VICTIMS.items())])
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    finally:
        if not arguments.keep:
            _compose("down")


def _gateway() -> Row:
    """One photo through the gateway, as a web app sends it."""
    with gateway(f"http://{_address('gateway', 5000)}", 30) as analyze:
        answer = analyze(reference_photos()[0].content)
    return Row("POST /analyze at the gateway", 1, int("processingTime" not in answer), json.dumps(answer))


def _kill(name: str, victim: str) -> Row:
    """Kills a process in Triton's container while photos come through the SDK."""
    with Load(f"grpc://{_address(TRITON, 8001)}", reference_photos(), workers=8, rate=40) as load:
        load.wait_for(80)
        killed = time.monotonic()
        # Killing `serve` ends the container, and with it this very command.
        _compose("exec", "--no-TTY", TRITON, "python3", "-c", KILL, victim, check=victim != "car-analyzer")
        while time.monotonic() < killed + 90 and not any(
            outcome.start > killed and outcome.kind == "correct" for outcome in load.outcomes
        ):
            time.sleep(0.1)
        # A container that Docker starts again keeps its address, so the recovered one answers these.
        load.wait_for(200)
    note = load.example().removeprefix("; ") or f"slowest answer {load.slowest:.1f} s"
    return Row(f"{name} is killed", len(load.outcomes), load.lost, note)


def _address(service: str, port: int) -> str:
    done = subprocess.run([*COMPOSE, "port", service, str(port)], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _compose(*words: str, check: bool = True) -> None:
    subprocess.run([*COMPOSE, *words], cwd=ROOT, stdout=sys.stderr, check=check)


if __name__ == "__main__":
    sys.exit(main())
