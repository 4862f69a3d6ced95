"""Does faults to a real service while photos are on their way, and counts what becomes of each photo.

Every answer is compared with PyTorch's. As long as the service is back within a photo's deadline of 30 s, no photo may
be lost, and no answer may ever be wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .known import EXAMPLES, known_photos
from .mischief import FAULTS, Fault, SkipError, Trial
from .outside import analyze_through_gateway, export_to_full_disk, start_without_shared_memory
from .proxy import Proxy
from .service import Service
from .stream import Stream
from .table import Row, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPILOG = """\
examples:
  python -m reliability.faults
  python -m reliability.faults --only triton-killed --only stub-busy
  python -m reliability.faults --repository model_repository --json

exit codes: 0 nothing was lost, 1 something was, 2 wrong usage
"""
# Photos before a fault, and after it, over each protocol.
BEFORE, AFTER = 20, 40


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    trials = all_trials()
    parser = argparse.ArgumentParser(
        prog="python -m reliability.faults",
        description=(__doc__ or "").partition("\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=trials, metavar="NAME", help="one fault; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="one with the demo models; default: export them to a folder"
    )
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
                    rows.append(row)
                    show(row, as_json=arguments.json)
            except SkipError as reason:
                print(f"{name} is skipped: {reason}.", file=sys.stderr)
    if not rows:
        return 0
    if not arguments.json:
        print(file=sys.stderr)
        return report(rows)
    return 1 if any(row.lost or not row.tried for row in rows) else 0


def show(row: Row, *, as_json: bool) -> None:
    """Prints one trial as soon as it is over."""
    if as_json:
        print(json.dumps(dataclasses.asdict(row)), flush=True)
    else:
        print(f"{row.name}: {row.tried} photos, {row.lost} lost; {row.note}", file=sys.stderr, flush=True)


def all_trials() -> dict[str, tuple[str, Callable[[Path], Iterator[Row]]]]:
    """Every fault by name: what it is, and how it is tried on a repository."""
    return {
        **{fault.name: (fault.what, partial(try_fault, fault)) for fault in FAULTS},
        "gateway": ("kill -9 of Triton, seen through the gateway", analyze_through_gateway),
        "memory-none": ("serve starts while /dev/shm is full", start_without_shared_memory),
        "disk-full": ("export to a disk that is full", export_to_full_disk),
    }


def try_fault(fault: Fault, repository: Path, timeout: float = 30.0) -> Iterator[Row]:
    """Tries a fault over both protocols.

    Args:
        fault: What goes wrong.
        repository: What is served; it is copied.
        timeout: Of each photo, in seconds.

    Raises:
        SkipError: It cannot be tried here.
    """
    with tempfile.TemporaryDirectory(prefix="car-analyzer-fault-") as folder:
        copy = shutil.copytree(repository, Path(folder) / "model_repository")
        prefix, variables = fault.prepare(Path(folder))
        service = Service(copy, prefix=prefix, variables=variables)
        service.start()
        try:
            for protocol in ("grpc", "http"):
                row, service = _try_over(protocol, fault, service, Path(folder), timeout)
                yield row
        finally:
            service.stop()


def _try_over(protocol: str, fault: Fault, service: Service, folder: Path, timeout: float) -> tuple[Row, Service]:
    url = service.addresses[protocol]
    proxy = Proxy(urlsplit(url).port or 0).listen() if fault.proxied else None
    trial = Trial(service, folder, proxy)
    if proxy is not None:
        url = f"{protocol}://127.0.0.1:{proxy.port}"
    problem = ""
    try:
        with Stream(url, known_photos(), 1 if fault.idle else 4, timeout, 2.0 if fault.idle else None) as stream:
            stream.wait_for(4 if fault.idle else BEFORE)
            try:
                fault.do(trial)
            except (RuntimeError, TimeoutError) as error:
                problem = f"; {error}"
            stream.wait_for(4 if fault.idle else AFTER, timeout=120)
    finally:
        if proxy is not None:
            proxy.close()
    row = summarize(f"{fault.name} {protocol}", stream)
    return dataclasses.replace(row, lost=row.lost + bool(problem), note=row.note + problem), trial.service


def summarize(name: str, stream: Stream) -> Row:
    """What became of the photos of a stream."""
    ends = sorted(outcome.start + outcome.seconds for outcome in stream.outcomes)
    gap = max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0.0)
    slowest = max((outcome.seconds for outcome in stream.outcomes), default=0.0)
    note = f"longest gap {gap:.1f} s, slowest photo {slowest:.1f} s"
    errors = stream.errors()
    if errors:
        note += f"; {len(errors)} kinds of errors, such as {errors[0][:200]}"
    return Row(name, len(ends), len(ends) - stream.counts()["right"], note)


def export_demo(repository: Path) -> Path:
    """Exports the demo models; returns the repository."""
    export(plan_export(Spec.from_file(EXAMPLES / "demo.toml")), repository)
    return repository


if __name__ == "__main__":
    sys.exit(main())
