"""Hostile photos and requests against a real Triton and a real gateway: what was promised, and what was lost."""

from __future__ import annotations

import argparse
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
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings

from .known import EXAMPLES, known_photos
from .photos.corpus import mutants, named
from .photos.judge import Judge, harmless_pool
from .photos.trial import Condition, Trial
from .requests import gateway
from .requests.trial import Requests
from .stream import Stream
from .table import Row, report

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPILOG = """\
examples:
  python -m reliability.fuzz
  python -m reliability.fuzz --count 500 --seed 42 --json

Each photo must get the answer of Pillow and PyTorch, or a refusal in a sentence; each wrong request a client error;
and the server must be as it was before. What is lost is saved in a folder, and can be tried again with the same seed.

exit codes: 0 nothing was lost, 1 something was, 2 wrong usage
"""


def main(argv: list[str] | None = None) -> int:
    """Runs all trials; returns the exit code."""
    arguments = _parser().parse_args(argv)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="car-analyzer-fuzz-")))
        repository = folder / "model_repository"
        print(f"seed {arguments.seed}, {arguments.count:,} damaged photos", file=sys.stderr)
        export(plan_export(Spec.from_file(EXAMPLES / "demo.toml")), repository)
        server = stack.enter_context(Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)))
        rows, complaints = hostile_triton(server, arguments.count, arguments.seed, arguments.losses)
        with (folder / "gateway.log").open("w") as log, gateway.running(server.grpc_url, log) as address:
            more = gateway.trials(address)
            for complaint in more[1]:
                _say(complaint)
        rows, complaints = rows + more[0], complaints + more[1]
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "rows": [asdict(row) for row in rows], "lost": complaints}))
        return int(any(row.lost or not row.tried for row in rows))
    return report(rows)


def hostile_triton(server: Server, count: int, seed: int, losses: Path) -> tuple[list[Row], list[str]]:
    """Sends samples, strangers, bombs, so many mutants, and wrong requests."""
    corpus = list(named())
    bombs = [photo for photo in corpus if photo.kind == "bomb"]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(harmless_pool())
        bar = stack.enter_context(_bar(len(corpus) + 2 * len(bombs) + count))
        trial = stack.enter_context(Trial(server, Judge(pool), losses, progress=bar.update, lost=_say))
        # Warms up: the buffers for what is largest, the stacks for what is deepest, and the judge's processes.
        Requests(server, each=100).run()
        trial.answers("files that are no photos", [photo for photo in corpus if photo.kind != "bomb"])
        trial.answers("bombs", bombs)
        before = Condition.of(server)
        with Stream(server.grpc_url, known_photos(), workers=2, rate=20) as neighbours:
            trial.answers("damaged photos", mutants(seed, count))
        trial.rows.append(_neighbours(neighbours))
        trial.costs(bombs)
        requests = Requests(server)
        requests.run()
        trial.rows += requests.rows + Condition.of(server).compare(before)
    for complaint in requests.complaints:
        _say(complaint)
    return trial.rows, trial.complaints + requests.complaints


def _say(complaint: str) -> None:
    tqdm.write(f"LOST {complaint}", file=sys.stderr)


def _neighbours(stream: Stream) -> Row:
    counts = stream.counts()
    note = "; ".join(stream.errors()[:3]) or "known photos sent meanwhile"
    return Row("their neighbours", counts.total(), counts.total() - counts["right"], note)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[tqdm[None]]:
    with tqdm(total=total, unit=" photos", disable=not sys.stderr.isatty()) as bar:
        yield bar


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reliability.fuzz",
        description="Send hostile photos and hostile requests to a real server.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=count, default=10_000, metavar="N", help="damaged photos; default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**31), metavar="N", help="default: another one each time"
    )
    parser.add_argument(
        "--losses",
        type=Path,
        default=Path(tempfile.gettempdir()) / "car-analyzer-lost",
        metavar="DIR",
        help="where photos are saved with which something went wrong; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
