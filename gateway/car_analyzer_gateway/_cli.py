"""`car-analyzer gateway`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from car_analyzer import ConfigurationError
from car_analyzer.command_line import DONE, FAILED, INTERRUPTED, USAGE

from ._app import make_app
from ._logs import configure_logging
from ._memory import tune_memory
from ._server import listen, run
from ._settings import make_parser, read_settings
from ._triton_process import PORT_FLAGS, TritonError, TritonProcess, add_flags

if TYPE_CHECKING:
    import socket

    from ._settings import Settings

PROG = "car-analyzer gateway"


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The arguments.

    Returns:
        The exit code.
    """
    parser = make_parser(PROG)
    add_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object when ready")
    flags = vars(parser.parse_args(argv))
    as_json = flags.pop("json", False)
    repository = flags.pop("repository", None)
    ports = {flag: flags.pop(flag) for flag in PORT_FLAGS if flag in flags}
    if ports and repository is None:
        parser.error(f"{next(iter(ports))} is for the Triton that --repository starts")
    try:
        settings = read_settings(flags)
        if repository is None:
            return _serve(settings, as_json=as_json)
        settings.read_token(), settings.read_admin_key()  # fail before Triton is started
        with TritonProcess(repository, ports, settings.otlp_endpoint, settings.admin_key_file) as triton:
            code = _serve(settings.model_copy(update={"url": triton.url}), as_json=as_json)
            return FAILED if triton.failed else code
    except ConfigurationError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return USAGE
    except TritonError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED if repository is None else DONE


def _serve(settings: Settings, *, as_json: bool) -> int:
    if settings.tls is not None:
        settings.tls.context()
    app = make_app(settings)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        # For system errors, Python's text repeats the address; errors of name resolution have no system text.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        print(
            f"{PROG}: port {settings.port} on {settings.host} cannot be used ({reason}); "
            "stop the program that uses it, or choose another port with --port.",
            file=sys.stderr,
        )
        return FAILED
    configure_logging(settings.log_level)
    tune_memory()
    run(app, listener, lambda: _announce(listener, app.state.gateway.client.url, as_json=as_json))
    return DONE


def _announce(listener: socket.socket, triton: str, *, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if as_json:
        print(json.dumps({"gateway": url, "triton": triton}), flush=True)
    else:
        print(f"Gateway is ready at {url} for Triton at {triton}; its documentation: {url}/docs", flush=True)
