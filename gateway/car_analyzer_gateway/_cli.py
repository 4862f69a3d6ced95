"""`car-analyzer gateway`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from car_analyzer import ConfigurationError
from car_analyzer.command_line import FAILED, INTERRUPTED, USAGE

from ._app import make_app
from ._logs import configure_logging
from ._memory import give_memory_back
from ._server import listen, run
from ._settings import make_parser, read_settings
from ._together import TRITON_PORTS, add_flags, serve_together

if TYPE_CHECKING:
    import socket

PROG = "car-analyzer gateway"


def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    parser = make_parser(PROG)
    add_flags(parser)
    flags = vars(parser.parse_args(argv))
    as_json = flags.pop("json", False)
    repository = flags.pop("repository", None)
    ports = [flag for flag in TRITON_PORTS if flags.pop(flag, None) is not None]
    if ports and repository is None:
        parser.error(f"{ports[0]} is for the Triton that --repository starts")
    try:
        settings = read_settings(flags)
        if repository is not None:
            settings.read_token()
            return serve_together(repository, argv, settings.otlp_endpoint)
        if settings.tls is not None:
            settings.tls.context()
        app = make_app(settings)
        listener = listen(settings.host, settings.port)
    except ConfigurationError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        # Python adds the address to the system's words, and names that are not found have none.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        print(
            f"{PROG}: port {settings.port} on {settings.host} cannot be used ({reason}); "
            "stop what listens there, or choose another with --port.",
            file=sys.stderr,
        )
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    configure_logging(settings.log_level)
    give_memory_back()
    run(app, listener, lambda: _announce(listener, app.state.gateway.client.url, as_json=as_json))
    return 0


def _announce(listener: socket.socket, triton: str, *, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if as_json:
        print(json.dumps({"gateway": url, "triton": triton}), flush=True)
    else:
        print(f"Gateway is ready at {url} for Triton at {triton}; how to call it: {url}/docs", flush=True)
