"""The command `car-analyzer`. Most sub-commands are in packages of their own, imported when they are used."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import sys
from typing import NamedTuple

from .._version import __version__
from ..command_line import FAILED, INTERRUPTED, PIPE_CLOSED, USAGE, add_tls, count, positive
from ..config import DEFAULT_URL, URL_VARIABLE
from ..errors import CarAnalyzerError, ConfigurationError


class Command(NamedTuple):
    """A sub-command from another package: its module's `main(argv)` is called with what follows its name."""

    module: str
    extra: str
    summary: str


COMMANDS = {
    "export": Command("car_analyzer_export.cli.export", "export", "turn trained .pth files into a model repository"),
    "publish": Command("car_analyzer_export.cli.publish", "export", "load a new version into a running Triton"),
    "rollback": Command("car_analyzer_export.cli.rollback", "export", "restore an earlier version in a running Triton"),
    "serve": Command("car_analyzer_server._cli", "server", "start a Triton on a model repository"),
    "stop": Command("car_analyzer_server._stop", "server", "stop a Triton that `serve --detach` started"),
    "gateway": Command("car_analyzer_gateway._cli", "gateway", "start an HTTP gateway for web apps"),
    "tune": Command("car_analyzer_export.cli.tune", "export", "find the settings with the highest throughput here"),
    "check": Command("car_analyzer_export.cli.check", "export", "compare the answers with labelled photos"),
    "calibrate": Command("car_analyzer_export.cli.calibrate", "export", "correct confidences with labelled photos"),
}

EXAMPLES = f"""\
examples:
  car-analyzer export cars.toml && car-analyzer serve --detach
  car-analyzer analyze car.jpg
  car-analyzer analyze photos/ --table --url http://triton.example:8000      or http://gateway.example:5000
  car-analyzer health
  car-analyzer stop

The server's address is --url, or ${URL_VARIABLE}, or {DEFAULT_URL}.
"""

ANALYZE_EXAMPLES = """\
examples:
  car-analyzer analyze car.jpg                    one JSON object
  car-analyzer analyze photos/ front.png          JSON Lines, each with its "image" first
  car-analyzer analyze photos/ --recursive --table
  car-analyzer analyze car.jpg --explain maps/    where the answers come from, as maps/car.jpg.condition.png
  curl -s https://example.com/car.jpg | car-analyzer analyze -
  car-analyzer analyze --from list.txt --output answers.jsonl
  car-analyzer analyze s3://bucket/photos/ --recursive --output answers.jsonl --concurrency 32

URLs need an extra: pip install 'car-analyzer[bulk]'. Storage such as s3:// needs its driver, too, such as s3fs.
With --output, give the same command again to continue a run that was stopped or killed. Photos that have an answer in
the file are not sent again.

exit code: 0 every photo was analysed, 1 some were not, 2 wrong usage, 3 no server answers
"""

HEALTH_EXAMPLES = """\
examples:
  car-analyzer health --url http://localhost:8000
  car-analyzer health --wait 60 && car-analyzer analyze car.jpg

exit code: 0 ready, 2 wrong usage, 3 not ready
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: What follows the program's name; None for the process's own arguments.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if arguments and arguments[0] in COMMANDS:
            return _run_elsewhere(arguments[0], arguments[1:])
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except CarAnalyzerError as error:
        print(f"car-analyzer: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigurationError) else FAILED
    except OSError as error:
        _silence_stdout()
        if error.errno == errno.EPIPE:
            return PIPE_CLOSED
        print(f"car-analyzer: {error}", file=sys.stderr)
        return FAILED


def _run(arguments: list[str]) -> int:
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    from . import analyze as _cli_analyze

    code: int = getattr(_cli_analyze, options.command)(options)
    return code


def _run_elsewhere(name: str, arguments: list[str]) -> int:
    command = COMMANDS[name]
    try:
        code: int = importlib.import_module(command.module).main(arguments)
    except ModuleNotFoundError as error:
        print(
            f"car-analyzer {name} needs {error.name}, which is not installed. This installs it:\n"
            f"  pip install 'car-analyzer[{command.extra}]'",
            file=sys.stderr,
        )
        return USAGE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    return code


def _silence_stdout() -> None:
    # Python flushes the rest when it exits, and would report the error again.
    with contextlib.suppress(AttributeError, OSError):  # there is no stdout, or it is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="car-analyzer",
        description="Classify photos of cars: clean or dirty, intact or damaged.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    analyze = _add(commands, "analyze", "analyse photos and print JSON", ANALYZE_EXAMPLES)
    analyze.add_argument(
        "photos", nargs="*", metavar="PHOTO", help="file, folder, URL, or - for a photo on standard input"
    )
    analyze.add_argument(
        "--from",
        dest="lists",
        action="append",
        default=[],
        metavar="FILE",
        help="file with one path or URL a line, - for standard input; may be repeated",
    )
    analyze.add_argument(
        "--output", metavar="FILE", help="append answers to this file as JSON Lines; continues an earlier run"
    )
    analyze.add_argument(
        "--retry-errors", action="store_true", help="with --output: analyse photos again that failed in an earlier run"
    )
    _add_server(analyze, timeout=30.0)
    analyze.add_argument(
        "--concurrency", type=count, default=8, metavar="N", help="photos in flight at once; default: %(default)s"
    )
    analyze.add_argument("--table", action="store_true", help="print a table instead of JSON")
    analyze.add_argument(
        "--with-model", action="store_true", help="add modelVersion and exportId to the JSON: which model answered"
    )
    analyze.add_argument(
        "--explain",
        metavar="FOLDER",
        help="also write a picture for each photo and head: where the answer comes from, as car.jpg.condition.png",
    )
    analyze.add_argument("--recursive", action="store_true", help="also search folders within folders")

    health = _add(commands, "health", "check whether the service is ready", HEALTH_EXAMPLES)
    _add_server(health, timeout=5.0)
    health.add_argument(
        "--wait", type=positive, metavar="SECONDS", help="wait for this long until the server and all models are ready"
    )
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.summary, add_help=False)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_server(parser: argparse.ArgumentParser, timeout: float) -> None:
    parser.add_argument(
        "--url",
        metavar="URL",
        help=f"Triton or gateway: grpc://, grpcs://, http:// or https://; default: ${URL_VARIABLE} or {DEFAULT_URL}",
    )
    parser.add_argument(
        "--timeout", type=positive, default=timeout, metavar="SECONDS", help="for each answer; default: %(default)g"
    )
    parser.add_argument("--model", default="car_analyzer", metavar="NAME", help="default: %(default)s")
    add_tls(parser)
