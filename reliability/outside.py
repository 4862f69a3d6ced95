"""Faults that are seen from elsewhere than through the SDK: by the gateway's callers, at the start, by the exporter."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from .gateway_stream import gateway
from .known import EXAMPLES, Known, known_photos
from .mischief import unshare
from .service import Service
from .table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where Linux keeps it
DEADLINE_S = 30.0
# What a caller may be told instead of an answer: come again, or no answer in time.
REFUSALS = (503, 504)
# Fills the file system of a folder to the last byte.
FILL = "dd if=/dev/zero of={folder}/filler bs=1M; dd if=/dev/zero bs=512 >> {folder}/filler; true"


def analyze_through_gateway(repository: Path) -> Iterator[Row]:
    """Kills Triton while photos go through a gateway: an answer or a clean refusal, and never a wrong answer."""
    with tempfile.TemporaryDirectory(prefix="car-analyzer-fault-") as folder:
        copy = shutil.copytree(repository, Path(folder) / "model_repository")
        with Service(copy) as service:
            for protocol in ("grpc", "http"):
                yield asyncio.run(_analyze_through_gateway(protocol, service))


async def _analyze_through_gateway(protocol: str, service: Service) -> Row:
    with gateway(service.addresses[protocol]) as url:
        outcomes: Counter[str] = Counter()
        longest = 0.0
        ended = asyncio.Event()

        async def ask(session: aiohttp.ClientSession, turn: int) -> None:
            nonlocal longest
            photos = known_photos()
            while not ended.is_set():
                known = photos[turn % len(photos)]
                turn += 1
                start = time.monotonic()
                outcomes[await _outcome(session, f"{url}/analyze", known)] += 1
                longest = max(longest, time.monotonic() - start)

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S + 5)) as session:
            workers = [asyncio.create_task(ask(session, turn)) for turn in range(4)]
            await asyncio.sleep(1)
            done = len(service.said("ready again"))
            os.kill(service.triton(), signal.SIGKILL)
            await asyncio.to_thread(service.wait_for, "ready again", done + 1)
            await asyncio.sleep(2)
            right = outcomes["right"]
            await asyncio.sleep(2)
            ended.set()
            await asyncio.gather(*workers)
    fine = {"right", *(f"status {status}" for status in REFUSALS)}
    lost = sum(count for outcome, count in outcomes.items() if outcome not in fine) + (outcomes["right"] <= right)
    return Row(f"gateway {protocol}", outcomes.total(), lost, f"{dict(outcomes)}, slowest {longest:.1f} s")


async def _outcome(session: aiohttp.ClientSession, url: str, known: Known) -> str:
    try:
        async with session.post(url, data=known.photo, headers={"Content-Type": "image/jpeg"}) as response:
            answer = await response.json()
            if response.status == 200:
                return "right" if known.agrees_as_json(answer) else f"wrong: {answer}"
            if set(answer) != {"error"}:
                return f"status {response.status} with {answer}"
            # What asks a caller to come again must be what a caller in a hurry can obey.
            await asyncio.sleep(0.05)
            return f"status {response.status}"
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
        return repr(error)


def start_without_shared_memory(repository: Path) -> Iterator[Row]:
    """Starts `serve` with a /dev/shm that is full: it has to say so."""
    prepare = f"mount -t tmpfs -o size=1m tmpfs {SHARED_MEMORY}; ({FILL.format(folder=SHARED_MEMORY)}) 2>/dev/null"
    service = Service(repository, prefix=[*unshare(), "--mount", "sh", "-c", f'{prepare}; exec "$@"', "sh"])
    try:
        service.start()
    except RuntimeError as error:
        message = str(error)
    else:
        service.stop()
        message = "it started"
    said = SHARED_MEMORY in message and "Traceback (most recent" not in message
    yield Row("memory-none", 1, int(not said), message.strip().rpartition("\n")[2][:200])


def export_to_full_disk(repository: Path) -> Iterator[Row]:
    """Exports to a disk that is full: it has to say so, and what was published is as it was."""
    with tempfile.TemporaryDirectory(prefix="car-analyzer-fault-") as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        # `serve` never sees this: mounts are private to the shell and what it starts.
        script = f"""
            mount -t tmpfs -o size=16m tmpfs {disk} && cp -r {repository} {disk}/models || exit 9
            ({FILL.format(folder=disk)}) 2>/dev/null
            {sys.executable} -m reliability.outside {disk}/models
            {sys.executable} -m car_analyzer export {EXAMPLES / "demo.toml"} --repository {disk}/models >&2
            echo $?
            {sys.executable} -m reliability.outside {disk}/models
        """
        ran = subprocess.run(
            [*unshare(), "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            cwd=EXAMPLES.parent,
        )
    message = ran.stderr.strip().rpartition("\n")[2]
    lines = ran.stdout.split()
    kept = len(lines) == 3 and lines[0] == lines[2]
    said = lines[1:2] == ["1"] and "No space left" in ran.stderr and "Traceback" not in ran.stderr
    broken = "" if kept else "; THE REPOSITORY CHANGED"
    yield Row("disk-full", 1, int(not (kept and said)), f"exit code {lines[1:2]}{broken}: {message[-250:]}")


def digest(folder: Path) -> str:
    """One number for all files of a folder, their names and contents."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(
        b"".join(str(file).encode() + hashlib.sha256(file.read_bytes()).digest() for file in files)
    ).hexdigest()


if __name__ == "__main__":
    print(digest(Path(sys.argv[1])))
