"""`car-analyzer tune`."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from car_analyzer.command_line import FAILED, USAGE, count, positive
from car_analyzer_server.cores import cores

from ..errors import PublishError, SpecError
from ..repository.config import as_text
from ..repository.versions import REFERENCES, config_on_disk, configs_of, locked, on_disk, write, writing
from ..spec import ENSEMBLE
from ..tuning.choice import Choice, around, variations
from ..tuning.trial import Trial, serve_and_measure
from .common import add_repository, make_parser, progress_bar, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ..repository.versions import Configs

_EPILOG = """\
examples:
  car-analyzer tune                                       for the highest throughput; changes nothing
  car-analyzer tune --photos photos/ --budget 200         ... with a p99 latency of at most 200 ms
  car-analyzer tune --write --plot tune.png

Serves copies of the repository on free ports for about two minutes; stop other work on the machine meanwhile. The best
settings are printed as lines for the spec of the next export; --write also writes them into the configurations (restart
`serve` to apply them). The current settings are measured twice: if the two rates differ by more than the gain, the
machine is too noisy to tell, and nothing is written.
exit codes: 0 done, 1 nothing could be measured, or nothing is within the budget, 2 wrong usage, 130 interrupted
"""
# A smaller gain may be chance.
GAIN = 1.03
MOST_PHOTOS = 64
_INSTALL_PLOT = "pip install 'car-analyzer[plot]'"


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.plot is not None and find_spec("matplotlib") is None:
        print(f"car-analyzer tune: --plot needs matplotlib, which is not installed: {_INSTALL_PLOT}", file=sys.stderr)
        return USAGE
    return run("tune", lambda: _tune(arguments), lambda code: code, interrupted="the measurements are incomplete")


def _tune(arguments: argparse.Namespace) -> int:
    repository: Path = arguments.repository
    version = on_disk(repository)
    if version is None:
        raise SpecError(f"The model repository {repository} serves no version; make one with `car-analyzer export`.")
    configs = configs_of(repository, version)
    served = Choice.of_each(configs)
    photos = _photos(arguments.photos or repository / "car_analyzer" / str(version) / REFERENCES)
    trials = _search(arguments, configs, photos)
    budget = arguments.budget or math.inf
    best, current, noise = _winner(trials, budget), trials[0], _noise(trials, budget)
    if noise is not None:
        best = current
    if arguments.plot is not None:
        from ..tuning.plot import draw

        draw(trials, best, budget, arguments.plot)
    written = False
    try:
        if best is not None and best is not current and arguments.write:
            _write(repository, version, configs, served, best.choice)
            written = True
    finally:
        # Measurements that took minutes are printed even if the result cannot be written.
        _report(trials, best, noise, arguments, written=written)
    return 0 if best is not None else FAILED


def _search(arguments: argparse.Namespace, configs: Configs, photos: Sequence[bytes]) -> list[Trial]:
    """Varies one setting after the other, starting from the best trial so far.

    The current settings are measured first, and again at the end.
    """
    networks = sum(config.backend == "onnxruntime" for config in configs.values())
    plan = variations(cores(), networks)
    budget = arguments.budget or math.inf
    callers = arguments.callers or sorted({1, 2 * cores(), 8 * cores()})
    trials: list[Trial] = []
    with (
        tempfile.TemporaryDirectory(prefix=".tune-", dir=arguments.repository.absolute().parent) as folder,
        progress_bar(2 + sum(len(values) - 1 for _, values in plan)) as progress,
    ):
        copy = Path(folder) / "model_repository"

        def measure(choice: Choice) -> None:
            progress(str(choice))
            trials.append(
                serve_and_measure(arguments.repository, copy, configs, choice, photos, callers, arguments.seconds)
            )

        measure(Choice.of(configs))
        for field, values in plan:
            base = (_winner(trials, budget) or trials[0]).choice
            for choice in around(base, field, values):
                if choice not in [trial.choice for trial in trials]:
                    measure(choice)
        measure(trials[0].choice)
    return trials


def _winner(trials: Sequence[Trial], budget: float) -> Trial | None:
    """The trial with the highest rate; the current settings, unless another trial is clearly better."""
    rates: dict[Choice, float] = {}
    for trial in trials:
        if point := trial.best(budget):
            rates[trial.choice] = max(point.rate, rates.get(trial.choice, 0.0))
    if not rates:
        return None
    best = max(rates, key=lambda choice: rates[choice])
    current = trials[0].choice
    if rates[best] < GAIN * rates.get(current, 0.0):
        best = current
    return next(trial for trial in trials if trial.choice == best)


def _noise(trials: Sequence[Trial], budget: float) -> str | None:
    """Describes the noise, if repeated measurements of the current settings differ by more than the gain."""
    current = [trial for trial in trials if trial.choice == trials[0].choice]
    rates = [point.rate if (point := trial.best(budget)) else 0.0 for trial in current]
    others = [point.rate for trial in trials if trial not in current and (point := trial.best(budget))]
    low, high = min(rates), max(rates)
    if high <= GAIN * low or max(others, default=0.0) - high > high - low:
        return None
    measured = " and ".join(f"{rate:.1f}" if rate else "0 (the p99 latency was too high)" for rate in rates)
    return (
        f"The machine was too noisy to tell: the current settings served {measured} photos a second, which differ by "
        "more than any gain. Stop other work on it, or measure longer with --seconds."
    )


def _write(repository: Path, version: int, measured: Configs, served: dict[str, Choice], choice: Choice) -> None:
    """Writes the settings into the configurations, unless these changed since they were measured.

    Raises:
        PublishError: They changed, or cannot be written.
    """
    with writing(repository), locked(repository):
        now = on_disk(repository)
        if now != version:
            found = "no complete version" if now is None else f"version {now}"
            raise PublishError(
                f"Version {version} was measured, but {repository} now serves {found}; nothing was written. "
                "Run `car-analyzer tune` again."
            )
        configs = configs_of(repository, version)
        if _export_id(configs) != _export_id(measured):
            raise PublishError(
                f"Version {version} in {repository} is another export than the one that was measured; nothing was "
                "written. Run `car-analyzer tune` again."
            )
        if Choice.of_each(configs) != served:
            raise PublishError(
                f"The settings in {repository} were changed during the measurements; nothing was written. Run "
                "`car-analyzer tune` again."
            )
        choice.write_to(configs)
        for model, config in configs.items():
            if config != config_on_disk(repository, model):
                write(repository / model / "config.pbtxt", as_text(config))


def _export_id(configs: Configs) -> str:
    parameters = configs[ENSEMBLE].parameters
    return str(parameters["export_id"].string_value) if "export_id" in parameters else ""


def _photos(folder: Path) -> list[bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise SpecError(f"{folder} is not a folder with photos; give one with --photos.")
    return [file.read_bytes() for file in files[:: math.ceil(len(files) / MOST_PHOTOS)]]


def _report(
    trials: Sequence[Trial], best: Trial | None, noise: str | None, arguments: argparse.Namespace, *, written: bool
) -> None:
    if arguments.json:
        found: dict[str, Any] = {"trials": [asdict(trial) for trial in trials]}
        found |= {"best": None if best is None else asdict(best.choice), "written": written, "noise": noise}
        print(json.dumps(found))
        return
    for trial in trials:
        points = "   ".join(f"{p.callers:3d} callers {p.rate:6.1f}/s p99 {p.p99:6.1f} ms" for p in trial.points)
        print(f"{'->' if trial is best else '  '} {trial.choice!s:64} {points}")
    if best is None:
        print(f"No settings reach a p99 latency of {arguments.budget:g} ms.")
    elif noise is not None:
        print(f"{noise} Nothing was changed.")
    elif best is trials[0]:
        print("The current settings are as good as any that were tried; nothing was changed.")
    else:
        if written:
            print("Written; restart `car-analyzer serve`. For the spec:")
        else:
            print("Not written." if arguments.write else "Not written; --write would write this. For the spec:")
        print("[limits]")
        before = asdict(trials[0].choice)
        for name, value in asdict(best.choice).items():
            print(f"{name} = {value}" + (f"  # before: {before[name]}" if value != before[name] else ""))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "tune", "Find the numbers of processes and threads with the highest throughput on this machine.", _EPILOG
    )
    add_repository(parser)
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="photos like those in production; default: those of the export"
    )
    parser.add_argument("--budget", type=positive, metavar="MS", help="for the p99 latency; default: none")
    parser.add_argument(
        "--callers", type=count, nargs="+", metavar="N", help="concurrent callers; default: 1, and 2 and 8 per core"
    )
    parser.add_argument(
        "--seconds", type=positive, default=4.0, metavar="S", help="of each measurement; default: %(default)g"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PNG",
        help=f"draw the throughput against the p99 latency; needs {_INSTALL_PLOT}",
    )
    writes = parser.add_mutually_exclusive_group()
    writes.add_argument("--write", action="store_true", help="write the best settings into the configurations")
    writes.add_argument("--dry-run", action="store_true", help="change nothing; the default")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    return parser
