"""Starts the containers as a laptop has them, kills what is in them under load, and says what callers lost.

Needs a Docker engine: python -m reliability.containers (make containers). The ports are those of docker-compose.yml.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from .known import known_photos
from .stream import Stream
from .table import Row, report

ROOT = Path(__file__).parents[1]
COMPOSE = ("docker", "compose", "--profile", "cpu")
TRITON = "triton-cpu"
# As far as the kernel keeps a process's name.
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
    photo = next(known for known in known_photos() if known.logits is not None).photo
    url = f"http://{_address('gateway', 5000)}/analyze"
    request = urllib.request.Request(url, photo, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        answer = json.load(response)
    return Row("POST /analyze at the gateway", 1, int("processingTime" not in answer), json.dumps(answer))


def _kill(name: str, victim: str) -> Row:
    """Kills a process in Triton's container while photos come through the SDK."""
    with Stream(f"grpc://{_address(TRITON, 8001)}", known_photos(), workers=8, rate=40) as stream:
        stream.wait_for(80)
        killed = time.monotonic()
        # The last one takes the container away under the command itself.
        _compose("exec", "--no-TTY", TRITON, "python3", "-c", KILL, victim, check=victim != "car-analyzer")
        while (
            not any(o.start > killed and o.kind == "right" for o in stream.outcomes) and time.monotonic() < killed + 90
        ):
            time.sleep(0.1)
        # A container that Docker starts again has the address it had, so these come from what was healed.
        stream.wait_for(200)
    ended = stream.outcomes
    slowest = max(outcome.seconds for outcome in ended)
    note = "; ".join(stream.errors()[:2]) or f"slowest answer {slowest:.1f} s"
    return Row(f"{name} is killed", len(ended), len(ended) - stream.counts()["right"], note)


def _address(service: str, port: int) -> str:
    done = subprocess.run([*COMPOSE, "port", service, str(port)], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _compose(*words: str, check: bool = True) -> None:
    subprocess.run([*COMPOSE, *words], cwd=ROOT, stdout=sys.stderr, check=check)


if __name__ == "__main__":
    sys.exit(main())
