"""`car-analyzer check`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from car_analyzer import TLS, CarAnalyzer, CarAnalyzerError, ConfigurationError, Retry, UnreachableError
from car_analyzer.command_line import DONE, FAILED, INTERRUPTED, UNREACHABLE, USAGE, add_tls, count, positive, share

from ..errors import CheckError
from .common import add_repository, make_parser

if TYPE_CHECKING:
    import argparse

    from ..checking.outcome import Outcome


# Somebody waits at the terminal, so retries end soon if the server is down.
RETRY = Retry(reconnect_patience=2.0)

_EPILOG = """\
examples:
  car-analyzer check labelled/                       labelled/clean/1.jpg, labelled/cleanliness/dirty/2.jpg,
                                                     labelled/dirty_intact/3.jpg, labelled/clean_damaged_4.jpg
  car-analyzer check labels.csv --report check.html  columns: file, and one for each head; unknown values are skipped
  car-analyzer check labelled/ --min-accuracy 0.9 --json

If the exported models are in --repository, it also tries another order of the labels, then other preprocessing: EXIF
rotation, other normalisations, BGR, a center crop. If the photos support one of them, also in held-out folds, it says
so, and what to change in the spec. If one only looks better, it says that the photos are too few.

exit codes: 0 checked, 1 nothing could be checked or an accuracy is below --min-accuracy, 2 wrong usage,
3 no server answers
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.report and not arguments.report.absolute().parent.is_dir():
        parser.error(f"--report: there is no folder {arguments.report.parent}")
    try:
        outcome = _check(arguments)
        _print(outcome, arguments)
    except BrokenPipeError:
        raise  # the reader closed the pipe
    except (CheckError, CarAnalyzerError, OSError) as error:
        print(f"car-analyzer check: {error}", file=sys.stderr)
        if isinstance(error, UnreachableError):
            print("Start a server with: car-analyzer serve", file=sys.stderr)
            return UNREACHABLE
        return USAGE if isinstance(error, ConfigurationError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return _exit_code(outcome, arguments.min_accuracy)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "check",
        "Compare a served model's answers with labelled photos, and find mistakes in the spec.",
        _EPILOG,
    )
    parser.add_argument(
        "source", type=Path, metavar="FOLDER", help="photos in sub-folders named by label, or a CSV file"
    )
    parser.add_argument(
        "--url", metavar="URL", help="of the server; default: $CAR_ANALYZER_URL or grpc://localhost:8001"
    )
    add_repository(parser)
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="write a page with all photos and answers, and where the wrong ones come from",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")
    parser.add_argument(
        "--min-accuracy", type=share, metavar="X", help="from 0 to 1; exit with 1 if a head's accuracy is below"
    )
    parser.add_argument(
        "--concurrency", type=count, default=8, metavar="N", help="concurrent requests; default: %(default)s"
    )
    parser.add_argument(
        "--timeout", type=positive, default=30.0, metavar="SECONDS", help="for each answer; default: %(default)g"
    )
    add_tls(parser)
    return parser


def _check(arguments: argparse.Namespace) -> Outcome:
    # `disable=None` shows a bar on a terminal only.
    with tqdm(unit="photo", disable=None, leave=False, dynamic_ncols=True) as bar:
        bar.set_description_str("connecting to the server")
        from ..checking.check import check

        def begin(part: str, total: int) -> None:
            bar.reset(total)
            bar.set_description_str(part)

        tls = TLS.of(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
        with CarAnalyzer(arguments.url, timeout=arguments.timeout, retry=RETRY, tls=tls) as analyzer:
            outcome = check(arguments.source, analyzer, arguments.repository, arguments.concurrency, begin, bar.update)
            if arguments.report:
                from ..checking.explain import explain_mistakes
                from ..checking.report import write_report

                begin("explaining mistakes", len(outcome.mistakes))
                explanations, note = explain_mistakes(analyzer, outcome.mistakes, bar.update)
                outcome.notes.extend([note] if note else [])
                write_report(outcome, arguments.report, explanations)
        return outcome


def _print(outcome: Outcome, arguments: argparse.Namespace) -> None:
    from ..checking.text import as_text, encodable

    if arguments.json:
        text = json.dumps(outcome.to_dict()) + "\n"
    else:
        text = as_text(outcome)
        if arguments.report:
            text += f"The report is in {arguments.report}\n"
    sys.stdout.write(encodable(text))
    sys.stdout.flush()


def _exit_code(outcome: Outcome, minimum: float | None) -> int:
    below = [tally for tally in outcome.tallies.values() if minimum is not None and tally.accuracy < minimum]
    for tally in below:
        print(
            f"car-analyzer check: {tally.head} is right on {tally.accuracy:.1%}, below {minimum:.1%}.", file=sys.stderr
        )
    return FAILED if below else DONE
