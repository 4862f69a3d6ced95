"""`--shadow` of `car-analyzer publish`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from car_analyzer.command_line import count, positive, share
from car_analyzer_server.access import KEY_VARIABLE, read_key

from ..checking.text import encodable
from ..errors import PublishError
from ..shadow.gateway import Gateway
from ..shadow.report import write_report
from ..shadow.text import as_text
from ..shadow.trial import ShadowTrial

if TYPE_CHECKING:
    from ..shadow.outcome import Outcome

PHOTOS, AGREE, TIMEOUT_S = 2000, 0.98, 3600.0
# Their defaults are set later, so that it is known which were given.
_NEED_SHADOW = ("gateway", "shadow_photos", "agree", "shadow_timeout", "report")


def add_shadow_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for a comparison on real photos."""
    group = parser.add_argument_group("comparison on real photos, before the version is served")
    group.add_argument(
        "--shadow",
        type=_share,
        metavar="SHARE",
        help="send this share of a gateway's photos to the new version, too, such as 10%%; callers get the served "
        "version's answers only",
    )
    group.add_argument(
        "--gateway",
        action="append",
        metavar="URL",
        help="with --shadow: a gateway that was started with the same --admin-key-file; repeat it for replicas",
    )
    group.add_argument(
        "--shadow-photos", type=count, metavar="N", help=f"with --shadow: how many photos; default: {PHOTOS}"
    )
    group.add_argument(
        "--agree",
        type=_share,
        metavar="SHARE",
        help="with --shadow: serve the new version only if each head gives so many photos the same label; "
        f"default: {AGREE:.0%}%",
    )
    group.add_argument(
        "--shadow-timeout",
        type=positive,
        metavar="SECONDS",
        help=f"with --shadow: give up if so many photos do not come in this time; default: {TIMEOUT_S:g}",
    )
    group.add_argument(
        "--report", type=Path, metavar="FILE.html", help="with --shadow: write a page with the photos that differ"
    )


def check_shadow_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program with a usage error if the options contradict each other."""
    given = [name for name in _NEED_SHADOW if getattr(arguments, name) is not None]
    if arguments.shadow is None:
        if given:
            parser.error(f"--{given[0].replace('_', '-')} needs --shadow")
        return
    if not arguments.shadow:
        parser.error("--shadow 0 compares nothing; leave it out, or give a share such as 10%")
    if arguments.gateway is None:
        parser.error("--shadow needs --gateway: the address of the gateway that receives the photos")
    if arguments.report is not None and not arguments.report.absolute().parent.is_dir():
        parser.error(f"--report: there is no folder {arguments.report.parent}")


class Shadow:
    """The comparison that the options describe.

    Args:
        arguments: The parsed options, with `--shadow`.

    Raises:
        PublishError: There is no administrators' key, or an address is not that of a gateway.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        key = read_key(arguments.admin_key_file)
        if key is None:
            raise PublishError(
                f"--shadow needs the key that the gateway and Triton were started with, in --admin-key-file or "
                f"${KEY_VARIABLE}."
            )
        self._as_json = arguments.json
        self._report: Path | None = arguments.report
        self.trial = ShadowTrial(
            [Gateway(url, key) for url in dict.fromkeys(arguments.gateway)],
            arguments.shadow,
            arguments.shadow_photos or PHOTOS,
            AGREE if arguments.agree is None else arguments.agree,
            arguments.shadow_timeout or TIMEOUT_S,
            keep_photos=self._report is not None,
            done=self._done,
        )

    def run(self, served: str, candidate: str) -> None:
        """Compares; see `ShadowTrial.run`. A bar counts the photos on a terminal."""
        # `disable=None` shows it on a terminal only.
        with tqdm(total=self.trial.photos, unit="photo", disable=None, leave=False) as bar:
            self.trial.watch = lambda photos: bar.update(photos - bar.n)
            self.trial.run(served or None, candidate or None)

    @property
    def facts(self) -> dict[str, Any]:
        """The figures, for `--json`."""
        return {"shadow": self.trial.outcome.facts} if self.trial.outcome is not None else {}

    @property
    def text(self) -> str:
        """The figures as text that this terminal can show."""
        return encodable(as_text(self.trial.outcome)) if self.trial.outcome is not None else ""

    def _done(self, outcome: Outcome, rejected: str | None) -> None:
        if self._report is not None:
            try:
                write_report(outcome, rejected or "The new version answers like the served one.", self._report)
            except OSError as error:
                raise PublishError(f"The report {self._report} cannot be written: {error.strerror}.") from error
        if rejected is not None:
            tqdm.write(json.dumps(self.facts) if self._as_json else self.text, file=sys.stdout)


def _share(text: str) -> float:
    if not text.endswith("%"):
        return share(text)
    try:
        value = float(text[:-1]) / 100
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share; write it like 10% or 0.1") from None
    return share(str(value))
