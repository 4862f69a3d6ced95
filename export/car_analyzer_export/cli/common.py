"""What the commands share: parsers, error messages, exit codes and the progress bar."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from car_analyzer import CarAnalyzerError
from car_analyzer.command_line import DONE, FAILED, INTERRUPTED, UNREACHABLE
from car_analyzer_server import ServingError, signals
from car_analyzer_server.repository import SIGNATURE

from ..errors import ExportError, TritonUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def make_parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Makes the parser of `car-analyzer COMMAND`."""
    return argparse.ArgumentParser(
        prog=f"car-analyzer {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_repository(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the model repository."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="the model repository; default: %(default)s",
    )


def add_sign(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the key that signs the model repository."""
    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help=f"sign the repository with this private key, PEM, in {SIGNATURE}, for `car-analyzer serve --verify`; "
        "a signed repository needs it",
    )


def run(command: str, work: Callable[[], T], report: Callable[[T], int | None], *, interrupted: str) -> int:
    """Does the work of a command, then reports the result.

    Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt in `work`, which undoes what it began.

    Args:
        command: Its name, for messages.
        work: Does everything that can be undone.
        report: Prints the result; returns the exit code, or None for success.
        interrupted: What the message after an interrupt says about the state that remains.

    Returns:
        The exit code.
    """
    try:
        with signals.raised_as_keyboard_interrupt():
            result = work()
    except (ExportError, ServingError, CarAnalyzerError) as error:
        print(f"car-analyzer {command}: {error}", file=sys.stderr)
        return UNREACHABLE if isinstance(error, TritonUnreachableError) else FAILED
    except KeyboardInterrupt:
        print(f"car-analyzer {command}: interrupted; {interrupted}.", file=sys.stderr)
        return INTERRUPTED
    return report(result) or DONE


@contextlib.contextmanager
def progress_bar(steps: int, first: str = "") -> Iterator[Callable[[str], None]]:
    """Shows progress on stderr: as a bar on a terminal, elsewhere as one line at the start of each step.

    Args:
        steps: How many there are at most.
        first: A few words about the step that begins now; empty if the first call begins the first one.

    Yields:
        A function that begins the next step, called with a few words about it.
    """
    bar_format = "{percentage:3.0f}%|{bar}| {n}/{total} [{elapsed}<{remaining}] {desc}"
    with tqdm(total=steps, disable=None, bar_format=bar_format, leave=False) as bar:
        begun = 0

        def begin(step: str) -> None:
            nonlocal begun
            begun += 1
            if bar.disable:
                print(f"[{begun}/{steps}] {step}", file=sys.stderr)
            else:
                bar.update(begun - 1 - bar.n)
                bar.set_description_str(step)

        if first:
            begin(first)
        yield begin
