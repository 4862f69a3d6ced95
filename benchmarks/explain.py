"""What class activation maps cost those who do not ask for them: the same networks exported with and without."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from car_analyzer.command_line import count
from car_analyzer_server import Server, Settings

from .command_line import make_parser
from .load import Answers, Load, run
from .materials import make_materials, make_photos
from .report import as_table

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT, WITH = "without maps", "with maps"


def main() -> int:
    """Prints a Markdown table of photos that are analysed, not explained."""
    parser = make_parser("benchmarks.explain", __doc__, seconds=5, network="resnet18")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    materials, photos = arguments.out / "materials", str(make_photos("s", arguments.out))
    repositories = {
        name: make_materials(arguments.network, materials, explain=name == WITH).repository for name in (WITHOUT, WITH)
    }
    found: dict[str, list[Answers]] = {name: [] for name in repositories}
    for number in tqdm(range(arguments.rounds), unit="round", disable=None):
        # In turns, so that a machine that gets faster or slower favours neither.
        for name in list(repositories)[:: -1 if number % 2 else 1]:
            found[name].append(_measure(repositories[name], photos, arguments.seconds))
    rows = [_row(name, answers, found[WITHOUT]) for name, answers in found.items()]
    print(as_table(("export", "photos/s", "p50, ms", "photos/s, ratio", "p50, ratio"), rows))
    return 0


def _measure(repository: Path, photos: str, seconds: float) -> Answers:
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0, supervised=True)) as server:
        return run(Load("grpc", server.grpc_url, photos, seconds=seconds))


def _row(name: str, answers: list[Answers], without: list[Answers]) -> tuple[str, ...]:
    rate, p50 = (statistics.median(getattr(one, figure) for one in answers) for figure in ("rate", "p50"))
    ratios = (
        [getattr(one, figure) / getattr(other, figure) for one, other in zip(answers, without, strict=True)]
        for figure in ("rate", "p50")
    )
    spreads = (f"{statistics.median(one):.2f} ({min(one):.2f}-{max(one):.2f})" for one in ratios)
    return (name, f"{rate:.1f}", f"{p50:.0f}", *spreads)


if __name__ == "__main__":
    sys.exit(main())
