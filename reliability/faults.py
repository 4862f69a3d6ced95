"""Injects faults into a real service while photos are on their way, and counts the outcome of each photo.

Every answer is compared with PyTorch's. As long as the service is back within a photo's deadline of 30 s, no photo may
be lost, and no answer may ever be wrong.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .harness import Row, SkipError, add_repository, announce, export_demo, make_parser, report
from .injection import FAULTS, Fault, Target, unshare
from .load import Load, gateway
from .proxy import Proxy
from .reference import EXAMPLES, reference_photos
from .service import Gateway, Service, fixed_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPILOG = """\
examples:
  python -m reliability.faults
  python -m reliability.faults --only triton-killed --only stub-busy
  python -m reliability.faults --repository model_repository --json
"""
# Photos before a fault, and after it, over each protocol.
BEFORE, AFTER = 20, 40
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where Linux keeps it
# What a gateway may answer in place of a result: retry later, or no answer in time.
_UNAVAILABLE = re.compile(r'CarAnalyzerError: 50[34] \{"error":')
# Fills the file system of a folder to the last byte.
_FILL = "dd if=/dev/zero of={folder}/filler bs=1M; dd if=/dev/zero bs=512 >> {folder}/filler; true"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    trials = all_trials()
    parser = make_parser("faults", __doc__, EPILOG)
    parser.add_argument("--only", action="append", choices=trials, metavar="NAME", help="one fault; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    add_repository(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object for each trial in place of the table")
    arguments = parser.parse_args(argv)
    if arguments.list:
        for name, (what, _) in trials.items():
            print(f"{name:16}  {what}")
        return 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="car-analyzer-faults-") as folder:
        repository = arguments.repository or export_demo(Path(folder) / "model_repository")
        for name in dict.fromkeys(arguments.only or trials):
            try:
                for row in trials[name][1](repository):
                    rows.append(announce(row))
                    if arguments.json:
                        print(json.dumps(dataclasses.asdict(row)), flush=True)
            except SkipError as reason:
                print(f"{name} is skipped: {reason}.", file=sys.stderr)
    if not rows or arguments.json:
        return int(any(row.broken for row in rows))
    return report(rows)


def all_trials() -> dict[str, tuple[str, Callable[[Path], Iterator[Row]]]]:
    """Every fault by name: what it is, and its trial on a repository."""
    return {
        **{fault.name: (fault.what, partial(try_fault, fault)) for fault in FAULTS},
        "gateway": ("kill -9 of Triton, seen through the gateway", kill_behind_gateway),
        "memory-none": ("serve starts while /dev/shm is full", start_without_shared_memory),
        "disk-full": ("export to a disk that is full", export_to_full_disk),
    }


def try_fault(fault: Fault, repository: Path, timeout: float = 30.0) -> Iterator[Row]:
    """Tries a fault over both protocols.

    Args:
        fault: What goes wrong.
        repository: What is served; it is copied.
        timeout: For each photo, in seconds.

    Raises:
        SkipError: It cannot be tried here.
    """
    with tempfile.TemporaryDirectory(prefix="car-analyzer-fault-") as folder:
        copy = shutil.copytree(repository, Path(folder) / "model_repository")
        prefix, variables = fault.prepare(Path(folder))
        target = Target(Service(copy, ports=fixed_ports(), prefix=prefix, variables=variables), Path(folder))
        target.service.start()
        try:
            for protocol in ("grpc", "http"):
                yield _try_over(protocol, fault, target, timeout)
        finally:
            target.service.stop()


def _try_over(protocol: str, fault: Fault, target: Target, timeout: float) -> Row:
    url, target.proxy = target.service.addresses[protocol], None
    if fault.proxied:
        target.proxy = Proxy(urlsplit(url).port or 0).listen()
        url = f"{protocol}://127.0.0.1:{target.proxy.port}"
    problem = ""
    workers, rate, before, after = (1, 2.0, 4, 4) if fault.idle else (4, None, BEFORE, AFTER)
    try:
        with Load(url, reference_photos(), workers, timeout, rate) as load:
            load.wait_for(before)
            try:
                fault.inject(target)
            except (RuntimeError, TimeoutError) as error:
                problem = f"; {error}"
            try:
                load.wait_for(after, timeout=120)
            except TimeoutError as error:
                problem += f"; {error}"
    finally:
        if target.proxy is not None:
            target.proxy.close()
    ends = sorted(outcome.start + outcome.seconds for outcome in load.outcomes)
    gap = max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0.0)
    note = f"longest gap {gap:.1f} s, slowest photo {load.slowest:.1f} s{load.example()}{problem}"
    return Row(f"{fault.name} {protocol}", len(ends), load.lost + bool(problem), note)


def kill_behind_gateway(repository: Path) -> Iterator[Row]:
    """Kills Triton while photos go through a gateway: a correct answer or 503 or 504, never a wrong answer."""
    with Service(repository) as service:
        for protocol in ("grpc", "http"):
            with Gateway(service.addresses[protocol]) as front:
                load = Load(front.url, reference_photos(), timeout=35, rate=40, transport=gateway)
                with load:
                    time.sleep(1)
                    service.wait_for_another("ready again", lambda: os.kill(service.triton(), signal.SIGKILL))
                    time.sleep(2)
                    healed = len(load.outcomes)
                    time.sleep(2)
            outcomes = load.outcomes
            lost = sum(not (one.kind == "correct" or _UNAVAILABLE.search(one.error or "")) for one in outcomes)
            recovered = any(outcome.kind == "correct" for outcome in outcomes[healed:])
            note = f"{dict(load.counts())}, slowest {load.slowest:.1f} s{load.example()}"
            yield Row(f"gateway {protocol}", len(outcomes), lost + (not recovered), note)


def start_without_shared_memory(repository: Path) -> Iterator[Row]:
    """Starts `serve` with a /dev/shm that is full: it must name the cause."""
    prepare = f"mount -t tmpfs -o size=1m tmpfs {SHARED_MEMORY}; ({_FILL.format(folder=SHARED_MEMORY)}) 2>/dev/null"
    service = Service(repository, prefix=[*unshare(), "--mount", "sh", "-c", f'{prepare}; exec "$@"', "sh"])
    try:
        with service:
            message = "it started"
    except RuntimeError as error:
        message = str(error)
    named = SHARED_MEMORY in message and "Traceback (most recent" not in message
    yield Row("memory-none", 1, int(not named), message.strip().rpartition("\n")[2][:200])


def export_to_full_disk(repository: Path) -> Iterator[Row]:
    """Exports to a disk that is full: it must name the cause and leave what was published unchanged."""
    with tempfile.TemporaryDirectory(prefix="car-analyzer-fault-") as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        digest = f"(cd {disk}/models && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c-64)"
        # Mounts are private to the shell and what it starts.
        script = f"""
            mount -t tmpfs -o size=16m tmpfs {disk} && cp -r {repository} {disk}/models || exit 9
            ({_FILL.format(folder=disk)}) 2>/dev/null
            {digest}
            {sys.executable} -m car_analyzer export {EXAMPLES / "demo.toml"} --repository {disk}/models >&2
            echo $?
            {digest}
        """
        command = [*unshare(), "--mount", "sh", "-c", script]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES.parent)
    lines, message = ran.stdout.split(), ran.stderr.strip().rpartition("\n")[2]
    unchanged = len(lines) == 3 and lines[0] == lines[2]
    named = lines[1:2] == ["1"] and "No space left" in ran.stderr and "Traceback" not in ran.stderr
    changed = "" if unchanged else "; THE REPOSITORY CHANGED"
    yield Row("disk-full", 1, int(not (unchanged and named)), f"exit code {lines[1:2]}{changed}: {message[-250:]}")


if __name__ == "__main__":
    sys.exit(main())
