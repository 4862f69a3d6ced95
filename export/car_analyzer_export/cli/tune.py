"""`car-analyzer tune`."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from car_analyzer import CarAnalyzerError
from car_analyzer.command_line import count, positive
from car_analyzer_server import ServerError
from car_analyzer_server.cores import cores

from ..errors import ExportError, PublishError, SpecError
from ..repository.config import as_text
from ..repository.versions import KNOWN, config_on_disk, configs_of, locked, on_disk, write, writing
from ..tuning.choice import Choice, around, variations
from ..tuning.trial import Trial, serve_and_measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..repository.versions import Configs

_EPILOG = """\
examples:
  car-analyzer tune                                       most photos a second
  car-analyzer tune --photos photos/ --budget 200         ... of which 99 % are answered within 200 ms
  car-analyzer tune --dry-run --plot tune.png

It serves copies of the repository, on free ports, for some two minutes; nothing else should run meanwhile. The best
settings are written into the configurations (a running `serve` takes them when it is started again), and shown as lines
for the spec, for the next export.
exit codes: 0 done, 1 it cannot be measured, or nothing is within the budget, 2 wrong usage
"""
# What is less than this better may be chance.
GAIN = 1.03
MOST_PHOTOS = 64


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.plot is not None and not _can_plot():
        print("car-analyzer tune: --plot needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 2
    try:
        return _tune(arguments)
    except (ExportError, ServerError, CarAnalyzerError) as error:
        print(f"car-analyzer tune: {error}", file=sys.stderr)
        return 1


def _tune(arguments: argparse.Namespace) -> int:
    repository: Path = arguments.repository
    version = on_disk(repository)
    if version is None:
        raise SpecError(f"The model repository {repository} serves no version; make one with `car-analyzer export`.")
    configs = configs_of(repository, version)
    served = Choice.of_each(configs)
    photos = _photos(arguments.photos or repository / "car_analyzer" / str(version) / KNOWN)
    trials = _search(arguments, configs, photos)
    budget = arguments.budget or math.inf
    best, current = _winner(trials, budget), trials[0]
    if arguments.plot is not None:
        from ..tuning.plot import draw

        draw(trials, best, budget, arguments.plot)
    written = False
    try:
        if best is not None and best is not current and not arguments.dry_run:
            _write(repository, version, served, best.choice)
            written = True
    finally:
        # What was measured for minutes is shown, whatever is in the way of writing it.
        _report(trials, best, arguments, written=written)
    return 0 if best is not None else 1


def _search(arguments: argparse.Namespace, configs: Configs, photos: Sequence[bytes]) -> list[Trial]:
    """Tries one thing after the other, each with the best of the others so far; what is served now comes first."""
    networks = sum(config.backend == "onnxruntime" for config in configs.values())
    plan = variations(cores(), networks)
    budget = arguments.budget or math.inf
    callers = arguments.callers or sorted({1, 2 * cores(), 8 * cores()})
    trials: list[Trial] = []
    with (
        tempfile.TemporaryDirectory(prefix=".tune-", dir=arguments.repository.absolute().parent) as folder,
        tqdm(total=1 + sum(len(values) - 1 for _, values in plan), disable=None, leave=False) as bar,
    ):

        def measure(choice: Choice) -> None:
            bar.set_description_str(str(choice))
            place = Path(folder) / "model_repository"
            trials.append(
                serve_and_measure(arguments.repository, place, configs, choice, photos, callers, arguments.seconds)
            )
            bar.update()

        measure(Choice.of(configs))
        for field, values in plan:
            base = (_winner(trials, budget) or trials[0]).choice
            for choice in around(base, field, values):
                if choice not in [trial.choice for trial in trials]:
                    measure(choice)
    return trials


def _winner(trials: Sequence[Trial], budget: float) -> Trial | None:
    """The best; what is served now, unless another one is clearly better."""
    rates = {trial.choice: point.rate for trial in trials if (point := trial.best(budget)) is not None}
    if not rates:
        return None
    best = max(rates, key=lambda choice: rates[choice])
    current = trials[0].choice
    if rates[best] < GAIN * rates.get(current, 0.0):
        best = current
    return next(trial for trial in trials if trial.choice == best)


def _write(repository: Path, version: int, served: dict[str, Choice], choice: Choice) -> None:
    """Changes the settings in the configurations as they are now; not if they are others than those that were measured.

    Raises:
        PublishError: They are, or cannot be written.
    """
    with writing(repository), locked(repository):
        now = on_disk(repository)
        if now != version:
            found = "no whole version" if now is None else f"version {now}"
            raise PublishError(
                f"Version {version} was measured, but {repository} now has {found} to serve; nothing was written. "
                "Run `car-analyzer tune` again."
            )
        configs = configs_of(repository, version)
        if Choice.of_each(configs) != served:
            raise PublishError(
                f"Somebody else changed the settings in {repository} meanwhile; nothing was written. Run "
                "`car-analyzer tune` again."
            )
        choice.write_to(configs)
        for model, config in configs.items():
            if config != config_on_disk(repository, model):
                write(repository / model / "config.pbtxt", as_text(config))


def _photos(folder: Path) -> list[bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise SpecError(f"{folder} is no folder with photos; name one with --photos.")
    return [file.read_bytes() for file in files[:: math.ceil(len(files) / MOST_PHOTOS)]]


def _report(trials: Sequence[Trial], best: Trial | None, arguments: argparse.Namespace, *, written: bool) -> None:
    if arguments.json:
        found: dict[str, Any] = {"trials": [asdict(trial) for trial in trials]}
        print(json.dumps(found | {"best": None if best is None else asdict(best.choice)}))
        return
    for trial in trials:
        points = "   ".join(f"{p.callers:3d} callers {p.rate:6.1f}/s p99 {p.p99:6.1f} ms" for p in trial.points)
        print(f"{'->' if trial is best else '  '} {trial.choice!s:64} {points}")
    if best is None:
        print(f"Nothing answers 99 % within {arguments.budget:g} ms.")
    elif best is trials[0]:
        print("What is served now is as good as anything tried; nothing was changed.")
    else:
        print("Written; start `car-analyzer serve` again. For the spec:" if written else "Not written.")
        lines = [f"{name} = {value}" for name, value in asdict(best.choice).items()]
        print("\n".join(["[limits]", *lines]))


def _can_plot() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="car-analyzer tune",
        description="Find the numbers of processes and threads that serve most photos on this machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--photos", type=Path, metavar="DIR", help="such as will come; default: those of the export")
    parser.add_argument("--budget", type=positive, metavar="MS", help="for the p99 of an answer; default: none")
    parser.add_argument(
        "--callers", type=count, nargs="+", metavar="N", help="at once; default: 1, and 2 and 8 for each core"
    )
    parser.add_argument("--seconds", type=positive, default=4.0, metavar="S", help="each time; default: %(default)g")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw photos a second against p99")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    return parser
