"""`car-analyzer calibrate`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from car_analyzer import TLS, CarAnalyzer
from car_analyzer.command_line import count, share

from ..errors import PublishError
from ..repository.signature import Signature
from ..repository.version_copy import add_copy, heads_of
from ..repository.versions import on_disk
from .common import add_repository, add_sign, make_parser, progress_bar, run
from .publishing import SWITCH_STEPS, add_server_options, connected, switch_to

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from ..calibration.calibrate import Outcome
    from ..checking.answers import Answer
    from ..checking.labelled import LabelledPhoto
    from ..repository.publishing.control import Triton
    from ..repository.publishing.switch import Switch
    from ..repository.version_copy import Copy

# Not a failure, but nothing was published.
NOT_BETTER = 4

_EPILOG = """\
examples:
  car-analyzer calibrate labelled/                      a new version in --repository, served from the next start
  car-analyzer calibrate labelled/ --url grpc://localhost:8001 --admin-key-file admin.key     served at once
  car-analyzer calibrate labels.csv --dry-run --report calibration.html
  car-analyzer calibrate labelled/ --dry-run --precision 0.95     a threshold for that, to write into the spec

The photos and their labels are in the format of `car-analyzer check`. Use photos that the networks were not trained
with: on training photos, they are more often right. The new version has the same networks and gives the same labels;
only confidences change. A head is calibrated if that helps on held-out photos beyond chance.

exit codes: 0 published, or would be with --dry-run, 1 nothing published (the message says why), 2 wrong usage,
3 no server answers, 4 nothing published, since calibration does not help, 130 interrupted, nothing published
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.report and not arguments.report.absolute().parent.is_dir():
        parser.error(f"--report: there is no folder {arguments.report.parent}")
    return run(
        "calibrate",
        lambda: _calibrate(arguments),
        lambda result: _report(arguments, *result),
        interrupted="nothing was published",
    )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "calibrate", "Learn from labelled photos how far confidences can be trusted, and correct them.", _EPILOG
    )
    parser.add_argument(
        "source", type=Path, metavar="FOLDER", help="photos in sub-folders named by label, or a CSV file"
    )
    add_repository(parser)
    add_sign(parser)
    add_server_options(
        parser,
        url_help="of a running Triton, grpc:// or grpcs://: ask it, and serve the new version there at once; "
        "default: run the networks here, and add the version to --repository",
    )
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page with reliability diagrams")
    parser.add_argument("--dry-run", action="store_true", help="measure everything, publish nothing")
    for name in ("precision", "recall"):
        parser.add_argument(
            f"--{name}",
            type=share,
            metavar="X",
            help=f"propose a threshold for this {name} of each head's positive label, from 0 to 1; it is not applied",
        )
    parser.add_argument(
        "--concurrency", type=count, default=8, metavar="N", help="concurrent requests; default: %(default)s"
    )
    return parser


def _calibrate(arguments: argparse.Namespace) -> tuple[Outcome, Copy | None, Switch | None]:
    repository: Path = arguments.repository
    signature = Signature(repository, arguments.sign, new=False)
    if not arguments.dry_run:
        signature.check()
    with contextlib.ExitStack() as stack:
        triton = stack.enter_context(connected(arguments)) if arguments.url else None
        version = triton.served() if triton else on_disk(repository)
        if version is None:
            raise PublishError(f"{repository} has no version to calibrate. Run `car-analyzer export` first.")
        outcome = _measure(arguments, version)
        if not arguments.json:
            _print_outcome(outcome, arguments)
        if arguments.dry_run or not outcome.helpful:
            return outcome, None, None
        return (outcome, *_publish(triton, version, outcome, signature))


def _measure(arguments: argparse.Namespace, version: int) -> Outcome:
    from ..calibration.calibrate import calibrate
    from ..calibration.thresholds import Wish

    heads = heads_of(arguments.repository, version)
    wishes = [Wish(of, value) for of in ("precision", "recall") if (value := getattr(arguments, of)) is not None]

    def analyze(photos: list[LabelledPhoto]) -> list[Answer]:
        with tqdm(total=len(photos), unit="photo", desc="analysing photos", disable=None, leave=False) as bar:
            if not arguments.url:
                from ..calibration.answers import LocalModel

                return LocalModel(arguments.repository, heads).analyze_all(photos, bar.update)
            from ..checking.answers import analyze_all

            tls = TLS.of(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
            with CarAnalyzer(arguments.url, tls=tls) as analyzer:
                answers = analyze_all(analyzer, photos, arguments.concurrency, bar.update)
        if {answer.analysis.version for answer in answers if answer.analysis} - {str(version)}:
            raise PublishError(f"Version {version} was replaced while it answered; run the command again.")
        return answers

    outcome = calibrate(arguments.source, heads, analyze, wishes)
    if arguments.report:
        from ..calibration.report import write_report

        try:
            write_report(outcome, arguments.report)
        except OSError as error:
            raise PublishError(f"{arguments.report} cannot be written: {error.strerror}.") from error
    return outcome


def _publish(triton: Triton | None, version: int, outcome: Outcome, signature: Signature) -> tuple[Copy, Switch | None]:
    facts = {name: found.to_dict() for name, found in outcome.helpful.items()}
    from ..checking.answers import drift_reference

    calibration = {name: found.scaling.fields() for name, found in outcome.helpful.items()}
    switches: list[Switch] = []
    with _progress(triton) as progress:

        def deliver(_repository: Path, number: int) -> None:
            assert triton is not None  # noqa: S101 - `deliver` is only used with it
            if triton.served() != version:
                raise PublishError(f"Version {version} was replaced meanwhile; run the command again.")
            switches.append(switch_to(triton, signature, number, progress, exported=number))

        copied = add_copy(
            signature.repository,
            version,
            calibration,
            {"heads": facts},
            drift=drift_reference(outcome.answers),
            deliver=deliver if triton else None,
            signature=signature,
        )
    return copied, switches[0] if switches else None


@contextlib.contextmanager
def _progress(triton: Triton | None) -> Iterator[Callable[[str], None]]:
    if triton is None:
        yield lambda _step: None
        return
    with progress_bar(SWITCH_STEPS) as progress:
        yield progress


def _print_outcome(outcome: Outcome, arguments: argparse.Namespace) -> None:
    from ..calibration.text import as_text
    from ..checking.text import encodable

    print(encodable(as_text(outcome)))
    if arguments.report:
        print(f"The report is in {arguments.report}")


def _report(arguments: argparse.Namespace, outcome: Outcome, copied: Copy | None, switch: Switch | None) -> int | None:
    if arguments.json:
        facts: dict[str, Any] = outcome.to_dict()
        if copied:
            facts |= {"version": copied.version, "export_id": copied.export_id}
            facts |= {"served": switch.version, "before": switch.before, "url": switch.triton.url} if switch else {}
        print(json.dumps(facts))
    else:
        _print_published(arguments, outcome, copied, switch)
    for note in switch.notes if switch else ():
        print(note, file=sys.stderr)
    return None if outcome.helpful else NOT_BETTER


def _print_published(
    arguments: argparse.Namespace, outcome: Outcome, copied: Copy | None, switch: Switch | None
) -> None:
    if copied is None:
        reason = "this was a dry run" if outcome.helpful else "calibration does not help"
        print(f"Nothing was published: {reason}.")
        return
    heads = ", ".join(outcome.helpful)
    print(f"published as version {copied.version} (export {copied.export_id}): {heads} calibrated, labels unchanged")
    if switch:
        print(f"version {switch.version} is served at {switch.triton.url}, in place of version {switch.before}")
    else:
        print(
            "a Triton that starts from now on serves it; a running one after "
            f"`car-analyzer publish --version {copied.version} --repository {arguments.repository}` or a restart"
        )
