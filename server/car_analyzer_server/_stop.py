"""`car-analyzer stop`."""

from __future__ import annotations

import argparse
import sys

from ._cli import port_number
from .background import Background
from .errors import ServingError
from .settings import DRAIN_SECONDS, Settings

_EPILOG = """\
examples:
  car-analyzer stop
  car-analyzer stop --grpc-port 9001

Completes the requests in flight, like Ctrl-C in `car-analyzer serve`, and returns when the server has ended.

exit codes: 0 stopped, or none was running; 1 it still runs; 2 wrong usage
"""
# Longer than Triton may take to stop, including the processes of the Python backend.
_PATIENCE_S = 2 * DRAIN_SECONDS + 20


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    port = _parser().parse_args(argv).grpc_port
    try:
        pid = Background(port).stop(_PATIENCE_S)
        if pid is not None:
            print(f"Stopped the server with gRPC port {port} (pid {pid}).")
            return 0
        others = [f"`{server.stop_command}`" for server in Background.running()]
        hint = f" Others run; to stop them: {', '.join(others)}." if others else ""
        print(f"No server with gRPC port {port} runs in the background.{hint}")
    except ServingError as error:
        print(f"car-analyzer stop: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="car-analyzer stop",
        description="Stop a server that `car-analyzer serve --detach` started.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--grpc-port",
        type=port_number,
        default=Settings.grpc_port,
        metavar="N",
        help="the gRPC port of the server; default: %(default)s",
    )
    return parser
