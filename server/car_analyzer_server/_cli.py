"""`car-analyzer serve`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ServerError

if TYPE_CHECKING:
    from types import FrameType

    from .server import Server, Settings

_EPILOG = """\
examples:
  car-analyzer serve
  car-analyzer serve --repository build/models --host 0.0.0.0
  car-analyzer serve -- --log-verbose=1 --cache-config=local,size=104857600

Arguments after -- go to tritonserver as they are. Ctrl-C or SIGTERM finishes what is in flight and stops everything.

exit codes: 0 stopped when asked to, 1 could not start or stopped by itself, 2 wrong usage
"""

# Also given by `serve` itself, so that a second value would be ignored or contradict it.
_OWN_ARGUMENTS = {
    "--model-repository": "--repository",
    "--model-store": "--repository",
    "--http-address": "--host",
    "--grpc-address": "--host",
    "--metrics-address": "--host",
    "--http-port": "--http-port before --",
    "--grpc-port": "--grpc-port before --",
    "--metrics-port": "--metrics-port before --",
}


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    own, passed_on = _split(argv)
    parser = _parser()
    arguments = parser.parse_args(own)
    for argument in passed_on:
        name, _, value = argument.partition("=")
        if name in _OWN_ARGUMENTS:
            parser.error(f"{name} is set by `car-analyzer serve`; use {_OWN_ARGUMENTS[name]}")
        if name == "--allow-http" and value.lower() in ("false", "0"):
            parser.error("--allow-http cannot be switched off: `car-analyzer serve` asks over HTTP whether it is ready")
    # A SIGTERM unwinds the stack like a Ctrl-C, wherever it comes: while starting, waiting, or in between.
    # SIGINT too: a shell starts its background jobs with it ignored, which Python would leave so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    from .server import Server, Settings

    settings = Settings(
        repository=arguments.repository,
        host=arguments.host,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
        tritonserver=arguments.tritonserver,
        arguments=tuple(passed_on),
        verbose=arguments.verbose,
    )
    return _serve(Server(settings), settings, as_json=arguments.json)


def _serve(server: Server, settings: Settings, *, as_json: bool) -> int:
    try:
        print(f"Starting Triton on {settings.repository} ...", file=sys.stderr)
        with server:
            _announce(server, as_json=as_json)
            code = server.wait()
        print(f"car-analyzer serve: Triton stopped by itself with exit code {code}.", file=sys.stderr)
    except ServerError as error:
        print(f"car-analyzer serve: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 0
    return 1


def _announce(server: Server, *, as_json: bool) -> None:
    if as_json:
        urls = {"grpc": server.grpc_url, "http": server.http_url, "metrics": server.metrics_url}
        print(json.dumps(urls | {"pid": server.pid, "models": server.models}), flush=True)
        return
    print(
        f"Triton ({server.origin}) is ready and serves {', '.join(server.models)}\n"
        f"  gRPC     {server.grpc_url}\n"
        f"  HTTP     {server.http_url}\n"
        f"  metrics  {server.metrics_url}\n"
        f"Try: car-analyzer analyze PHOTO.jpg --url {server.grpc_url}",
        flush=True,
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in argv:
        return argv, []
    position = argv.index("--")
    return argv[:position], argv[position + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="car-analyzer serve",
        usage="%(prog)s [options] [-- TRITON ARGUMENTS]",
        description="Start NVIDIA Triton Inference Server on a model repository and keep it running.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: %(default)s")
    for protocol, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{protocol}-port", type=_port, default=port, metavar="N", help="default: %(default)s; 0: any free port"
        )
    parser.add_argument("--tritonserver", type=Path, metavar="FILE", help="the executable; default: look for one")
    parser.add_argument("--verbose", action="store_true", help="show Triton's log from the start")
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object when ready")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port from 0 to 65535")
    return int(text)
