"""`python -m benchmarks`: every system in one run, in rounds, on the same networks and photos."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable  # noqa: TC003 - COLUMNS is annotated at run time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from car_analyzer.command_line import count
from car_analyzer_export.errors import SpecError
from reliability.processes import usage

from . import perf_analyzer
from .command_line import NETWORKS, SIZES, make_parser
from .load import Answers, Load, run
from .materials import expect_answers, make_materials, make_photos
from .report import as_table, draw_bars, middle
from .systems import CORES, SYSTEMS, System, prepare, started

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

_EPILOG = """\
examples:
  python -m benchmarks                                   every case, about 16 minutes on 2 cores
  python -m benchmarks --cases tiny-s --rounds 1 --systems limit 'car-analyzer, gRPC' LitServe
  python -m benchmarks --cases resnet50-s --out build/bench

A case is a network and a photo size: s 640x480, m 1920x1080, l 4000x3000, xl 6000x4000.
exit codes: 0 measured, 1 nothing could be measured, 2 wrong usage
"""
LIMIT = "limit"
_NAMES = tuple(system.name for system in SYSTEMS)
_OURS = ("car-analyzer, gRPC", "car-analyzer, gateway")
_RIVALS = tuple(system.name for system in SYSTEMS if system.rival)
# Everything is compared where networks cost nothing, rivals where they do. Large photos are mostly decoded, which all
# rivals do alike: one of them is enough.
CASES = {
    "tiny-s": _NAMES,
    "resnet18-s": (LIMIT, *_OURS, *_RIVALS),
    "tiny-l": (LIMIT, *_OURS, "FastAPI + ONNX Runtime"),
    "resnet18-l": (LIMIT, *_OURS, "FastAPI + ONNX Runtime"),
}
# Where perf_analyzer measures, too.
CHECKED_CASE, CHECKED_SYSTEMS = "tiny-s", ("car-analyzer, gRPC", "car-analyzer, HTTP")


@dataclass(frozen=True)
class Measurement:
    """One system in one round.

    Attributes:
        case: Network and photo size.
        system: Its name.
        round: Its number.
        answers: To all clients.
        single: Median milliseconds with one client.
        memory: Bytes after the load; of the limit, none is measured.
        first_answer: Seconds from the start to the first answer.
        perf_analyzer: Photos a second by its count; None where it does not measure.
    """

    case: str
    system: str
    round: int
    answers: Answers
    single: float
    memory: int
    first_answer: float
    perf_analyzer: float | None


# The columns of the table, and what the medians in them are of.
COLUMNS: dict[str, tuple[Callable[[Measurement], float | None], str, float]] = {
    "photos/s": (lambda one: one.answers.rate, ".1f", 1),
    "by perf_analyzer": (lambda one: one.perf_analyzer, ".1f", 1),
    "1 client, ms": (lambda one: one.single, ".1f", 1),
    "p50, ms": (lambda one: one.answers.p50, ".0f", 1),
    "p99, ms": (lambda one: one.answers.p99, ".0f", 1),
    "memory, MB": (lambda one: one.memory or None, ".0f", 1e6),
    "first answer, s": (lambda one: one.first_answer if one.memory else None, ".1f", 1),
}


def main() -> int:
    """Measures, prints the table, and writes the picture and all figures."""
    arguments = _parse()
    out: Path = arguments.out
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {CORES} cores, Python {platform.python_version()}", file=sys.stderr)
    rounds = [(case, number) for case in arguments.cases for number in range(arguments.rounds)]
    steps = [(*one, system) for one in rounds for system in SYSTEMS if system.name in _wanted(one[0], arguments)]
    rivals = dict.fromkeys(system.rival for *_, system in steps if system.rival)
    missing = {rival for rival in rivals if not prepare(rival, out / "environments")}
    steps = [step for step in steps if step[2].rival not in missing]
    found: list[Measurement] = []
    with tqdm(steps, disable=None, smoothing=0) as progress:  # without smoothing: the time left is of all that is left
        for case, number, system in progress:
            progress.set_description(f"{case}, {system.name}")
            try:
                found.append(_measure(case, system, number, arguments))
            except (RuntimeError, SpecError) as error:
                tqdm.write(f"left out of round {number + 1} of {case}: {system.name}: {error}", file=sys.stderr)
            (out / "figures.json").write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")
    if not found:
        return 1
    cases = dict.fromkeys(one.case for one in found)
    print("\n\n".join(f"### {case}\n\n{_table([one for one in found if one.case == case])}" for case in cases))
    rates: dict[str, dict[str, list[float]]] = {}
    for one in found:
        rates.setdefault(one.case, {}).setdefault(one.system, []).append(one.answers.rate)
    draw_bars(rates, out / "throughput.png")
    print(f"written: {out / 'figures.json'}, {out / 'throughput.png'}", file=sys.stderr)
    return 0


def _wanted(case: str, arguments: argparse.Namespace) -> Sequence[str]:
    return (LIMIT, *arguments.systems) if arguments.systems else CASES.get(case, _NAMES)


def _measure(case: str, system: System, number: int, arguments: argparse.Namespace) -> Measurement:
    network, _, size = case.rpartition("-")
    out: Path = arguments.out
    materials, photos = make_materials(network, out / "materials", system.spec), make_photos(size, out)
    clients = CORES if system.name == LIMIT else arguments.clients
    with started(system, materials, out / "environments", min(photos.iterdir()).read_bytes()) as running:
        url, groups, first_answer = running
        expected = str(expect_answers(materials, photos))
        load = Load(system.client, url, str(photos), clients, arguments.seconds, warm_up=1, expected=expected)
        one = run(replace(load, clients=1, seconds=1, warm_up=0.5))
        answers = run(load)
        memory = sum(usage(group).memory for group in groups)
        checked = None
        if case == CHECKED_CASE and system.name in CHECKED_SYSTEMS:
            program = perf_analyzer.find_program(out / "environments")
            checked = perf_analyzer.measure(program, out / "environments", load).rate if program else None
    return Measurement(case, system.name, number, answers, one.p50, memory, first_answer, checked)


def _table(found: list[Measurement]) -> str:
    """Of one case: medians of each system, and the ratio of its rate to the limit of the same round."""
    limits = {one.round: one.answers.rate for one in found if one.system == LIMIT}
    rows = []
    for system in dict.fromkeys(one.system for one in found):
        rounds = [one for one in found if one.system == system]
        shares = [one.answers.rate / limits[one.round] for one in rounds if one.round in limits]
        share = f"{middle(shares, '.2f')} ({min(shares):.2f}-{max(shares):.2f})" if shares else ""
        rate, *others = (middle(map(value, rounds), form, unit) for value, form, unit in COLUMNS.values())
        rows.append((system, rate, share, *others, sum(len(one.answers.errors) for one in rounds) or ""))
    first, *columns = COLUMNS
    header = ("system", first, "of the limit", *columns, "errors")
    # Columns without a figure are left out.
    header, *rows = zip(*(column for column in zip(header, *rows, strict=True) if any(column[1:])), strict=True)
    return as_table(header, rows)


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks", __doc__, seconds=3, epilog=_EPILOG)
    cases = [f"{network}-{size}" for network in NETWORKS for size in SIZES]
    add = parser.add_argument
    add("--cases", nargs="+", choices=cases, default=tuple(CASES), metavar="CASE", help="default: %(default)s")
    named = f"of {'; '.join(_NAMES)}; default: those that a case is about"
    add("--systems", nargs="+", choices=_NAMES, metavar="NAME", help=named)
    add("--rounds", type=count, default=3, help="default: %(default)s")
    add("--clients", type=count, default=8, help="photos in flight; default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
