"""Sends hostile photos and requests to a real Triton and a real gateway, and counts broken promises.

Each photo must get the answer of Pillow and PyTorch, or a rejection in a sentence; each wrong request a client error;
and the server must be as it was before. Lost photos are saved in a folder; the same seed makes the same ones.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from car_analyzer.command_line import count
from car_analyzer_server import Server, Settings

from . import gateway_requests
from .harness import Row, export_demo, make_parser, report
from .load import Load
from .photos.corpus import bombs, malformed, mutants
from .photos.oracle import Oracle, separate_pool
from .photos.photo_trial import Condition, PhotoTrial
from .reference import reference_photos
from .triton_requests import RequestTrial

if TYPE_CHECKING:
    import argparse

_EPILOG = """\
examples:
  python -m reliability.fuzz
  python -m reliability.fuzz --count 500 --seed 42 --json
"""


def main(argv: list[str] | None = None) -> int:
    """Runs all trials; returns the exit code."""
    arguments = _parser().parse_args(argv)
    print(f"seed {arguments.seed}, {arguments.count:,} corrupted photos", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="car-analyzer-fuzz-") as folder:
        repository = export_demo(Path(folder) / "model_repository")
        with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)) as server:
            rows, complaints = _fuzz_triton(server, arguments.count, arguments.seed, arguments.losses)
            more_rows, more_complaints = gateway_requests.trials(server.grpc_url)
    for complaint in more_complaints:
        _announce_loss(complaint)
    rows, complaints = rows + more_rows, complaints + more_complaints
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "rows": [asdict(row) for row in rows], "lost": complaints}))
        return int(any(row.broken for row in rows))
    return report(rows)


def _fuzz_triton(server: Server, count: int, seed: int, losses: Path) -> tuple[list[Row], list[str]]:
    """Sends the corpus, so many mutants, and wrong requests."""
    costly = list(bombs())
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(separate_pool())
        bar = stack.enter_context(tqdm(total=count + 2 * len(costly), unit=" photos", disable=not sys.stderr.isatty()))
        oracle = Oracle(pool)
        trial = stack.enter_context(PhotoTrial(server, oracle, losses, progress=bar.update, lost=_announce_loss))
        # The warm-up: buffers grow to the largest request, and the oracle's processes start.
        RequestTrial(server, each=100).run()
        trial.answers("files that are no photos", malformed())
        trial.answers("bombs", costly)
        before = Condition.of(server)
        with Load(server.grpc_url, reference_photos(), workers=2, rate=20) as others:
            trial.answers("corrupted photos", mutants(seed, count))
        note = others.example().removeprefix("; ") or "reference photos sent meanwhile"
        trial.rows.append(Row("other clients", len(others.outcomes), others.lost, note))
        trial.costs(costly)
        requests = RequestTrial(server)
        requests.run()
        trial.rows += requests.rows + Condition.of(server).compare(before)
    for complaint in requests.complaints:
        _announce_loss(complaint)
    return trial.rows, trial.complaints + requests.complaints


def _announce_loss(complaint: str) -> None:
    tqdm.write(f"LOST {complaint}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("fuzz", __doc__, _EPILOG)
    parser.add_argument("--count", type=count, default=10_000, metavar="N", help="mutants; default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**31), metavar="N", help="default: another one each time"
    )
    parser.add_argument(
        "--losses",
        type=Path,
        default=Path(tempfile.gettempdir()) / "car-analyzer-lost",
        metavar="DIR",
        help="where lost photos are saved; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
