"""`car-analyzer serve`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import signals
from .errors import ServingError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .server import Server
    from .settings import Settings

_EPILOG = """\
examples:
  car-analyzer serve
  car-analyzer serve --repository build/models --host 0.0.0.0
  car-analyzer serve --detach && car-analyzer analyze car.jpg && car-analyzer stop
  car-analyzer serve --admin-key-file admin.key
  car-analyzer serve --host 0.0.0.0 --tls-cert server.pem --tls-key server.key --tls-client-ca clients.pem
  car-analyzer serve --verify sign.pub
  car-analyzer serve -- --log-verbose=1 --cache-config=local,size=104857600

With --verify, nothing is served unless every file is as `car-analyzer export --sign sign.key` signed it. The pair:
  openssl ecparam -name prime256v1 -genkey -noout -out sign.key
  openssl ec -in sign.key -pubout -out sign.pub
With TLS, gRPC is encrypted and HTTP, which Triton cannot encrypt, listens on 127.0.0.1 only.
Arguments after -- are passed to tritonserver. Ctrl-C or SIGTERM completes the requests in flight and stops everything.

It supervises Triton: a model whose process died gets a new one, and a Triton that crashed, or has not answered for
15 seconds, is restarted on the same ports, immediately and then with increasing pauses. It gives up after six restarts
in a row of which none lasted 30 seconds. Each event is logged on stderr.
At start it cleans up after killed Tritons: orphaned processes, and unused shared memory. If Triton aborts while it
starts, it is started once more.

With --detach, it returns when Triton is ready, and goes on in the background until `car-analyzer stop`. Its log is in
$XDG_STATE_HOME/car-analyzer, by default ~/.local/state/car-analyzer, one file for each gRPC port.

exit codes: 0 stopped by a signal; 1 could not start, gave up, or with --no-restart Triton ended; 2 wrong usage;
with --detach: 0 ready, 1 could not start, 2 wrong usage, 130 interrupted
"""

OTLP_VARIABLE = "CAR_ANALYZER_OTLP_ENDPOINT"
CORES_VARIABLE = "CAR_ANALYZER_CORES"
VERIFY_VARIABLE = "CAR_ANALYZER_VERIFY_KEY"
LOG_PHOTOS_VARIABLE = "CAR_ANALYZER_LOG_PHOTOS"
_INTERRUPTED = 130

# Set by `serve` itself; a second value would be ignored or contradict it.
_OWN_ARGUMENTS = {
    "--model-repository": "--repository",
    "--model-store": "--repository",
    "--http-address": "--host",
    "--grpc-address": "--host",
    "--metrics-address": "--host",
    "--http-port": "--http-port before --",
    "--grpc-port": "--grpc-port before --",
    "--metrics-port": "--metrics-port before --",
    "--model-control-mode": "`car-analyzer publish`, with the key of --admin-key-file",
    "--load-model": "a --repository with those models only",
    **dict.fromkeys(
        ("--grpc-use-ssl", "--grpc-use-ssl-mutual", "--grpc-server-cert", "--grpc-server-key", "--grpc-root-cert"),
        "--tls-cert, --tls-key and --tls-client-ca",
    ),
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
            parser.error("--allow-http cannot be switched off: `car-analyzer serve` checks readiness over HTTP")
    start = _detach if arguments.detach else _serve_here
    return _run(
        lambda: start(_settings(arguments, passed_on), as_json=arguments.json, restart=not arguments.no_restart),
        stopped=_INTERRUPTED if arguments.detach else 0,
    )


def _run(work: Callable[[], None], *, stopped: int = 0) -> int:
    """Returns the exit code; `stopped` after a signal."""
    try:
        with signals.raised_as_keyboard_interrupt():
            work()
    except ServingError as error:
        print(f"car-analyzer serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return stopped
    return 0


def _settings(arguments: argparse.Namespace, passed_on: list[str]) -> Settings:
    from .access import ServerTLS, random_key, read_key
    from .cores import cores
    from .settings import Settings

    certificate, key, client_ca = arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        raise SettingsError("--tls-cert and --tls-key need each other, and --tls-client-ca needs both.")
    return Settings(
        repository=arguments.repository,
        host=arguments.host,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
        tritonserver=arguments.tritonserver,
        admin_key=read_key(arguments.admin_key_file) or random_key(),
        tls=None if certificate is None else ServerTLS(certificate, key, client_ca),
        otlp_endpoint=arguments.otlp_endpoint or None,
        cores=arguments.cores or cores(),
        supervised=True,
        arguments=tuple(passed_on),
        verify=arguments.verify,
        log_photos=arguments.log_photos,
        verbose=arguments.verbose,
    )


def _serve_here(settings: Settings, *, as_json: bool, restart: bool) -> None:
    _serve(settings, _announce_as_json if as_json else _announce, restart=restart)


def _detach(settings: Settings, *, as_json: bool, restart: bool) -> None:
    from .background import Background
    from .repository import demo_warning
    from .settings import with_ports

    # First, because its ports are in use.
    Background(settings.grpc_port).check_stopped()
    chosen = with_ports(settings)
    background = Background(chosen.grpc_port)

    def serve(ready: Callable[[str], None]) -> int:
        return _run(lambda: _serve(chosen, lambda server: ready(json.dumps(_facts(server))), restart=restart))

    _report_start(chosen)
    facts = json.loads(background.start(serve))
    if warning := demo_warning(chosen.repository):
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(facts | {"log": str(background.log)}))
        return
    print(
        f"Triton is ready: gRPC {facts['grpc']}, HTTP {facts['http']}, metrics {facts['metrics']}; "
        f"log {background.log}; to stop it: {background.stop_command}"
    )


def _serve(settings: Settings, announce: Callable[[Server], None], *, restart: bool) -> None:
    from .repository import demo_warning
    from .server import Server
    from .supervisor import Supervisor

    _report_start(settings)
    with Server(settings) as server:
        supervisor = Supervisor(server, restart=restart)
        if warning := demo_warning(settings.repository):
            print(f"warning: {warning}", file=sys.stderr)
        announce(server)
        supervisor.run()


def _report_start(settings: Settings) -> None:
    print(f"Starting Triton on {settings.repository} ...", file=sys.stderr)


def _announce_as_json(server: Server) -> None:
    print(json.dumps(_facts(server)), flush=True)


def _announce(server: Server) -> None:
    print(
        f"Triton ({server.origin}) is ready and serves {', '.join(server.models)}\n"
        f"  gRPC     {server.grpc_url}\n"
        f"  HTTP     {server.http_url}\n"
        f"  metrics  {server.metrics_url}\n"
        f"Try: car-analyzer analyze PHOTO.jpg --url {server.grpc_url}",
        flush=True,
    )


def _facts(server: Server) -> dict[str, Any]:
    urls = {"grpc": server.grpc_url, "http": server.http_url, "metrics": server.metrics_url}
    return urls | {"pid": server.pid, "models": server.models}


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
    parser.add_argument(
        "--verify",
        type=Path,
        default=os.environ.get(VERIFY_VARIABLE) or None,
        metavar="KEY",
        help="serve the repository only if it is signed: verify it with this public key, PEM, at each start and before "
        f"a model is loaded again; default: ${VERIFY_VARIABLE}",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on, IPv4 or IPv6; default: %(default)s")
    for protocol, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{protocol}-port",
            type=port_number,
            default=port,
            metavar="N",
            help="default: %(default)s; 0: any free port",
        )
    parser.add_argument("--tritonserver", type=Path, metavar="FILE", help="the executable; default: search for it")
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help="file with the key that callers need to load models, use shared memory, trace, or change the log; "
        "default: $CAR_ANALYZER_ADMIN_KEY; without a key, no caller can",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="encrypt gRPC with this PEM certificate chain")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key, PEM")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="accept only callers with a certificate of these authorities"
    )
    parser.add_argument(
        "--otlp-endpoint",
        default=os.environ.get(OTLP_VARIABLE),
        metavar="URL",
        help=f"collector to send traces to, OTLP over HTTP, such as http://localhost:4318; default: ${OTLP_VARIABLE}",
    )
    parser.add_argument(
        "--cores",
        type=_count,
        default=os.environ.get(CORES_VARIABLE) or "0",
        metavar="N",
        help="processor cores to start processes and threads for, where the repository sets no number; "
        f"default: ${CORES_VARIABLE}, or 0: all that it may use",
    )
    parser.add_argument(
        "--no-restart",
        action="store_true",
        help="end with Triton, for platforms that restart containers themselves",
    )
    parser.add_argument(
        "--log-photos",
        action="store_true",
        default=os.environ.get(LOG_PHOTOS_VARIABLE) == "1",
        help=f"log a line for each photo: size, format, result; default: yes if ${LOG_PHOTOS_VARIABLE} is 1",
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="return when Triton is ready; it goes on in the background until `car-analyzer stop`",
    )
    parser.add_argument("--verbose", action="store_true", help="show all of Triton's log, from the start")
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object when ready")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def port_number(text: str) -> int:
    """A port, or 0 for any free one, for argparse."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port from 0 to 65535")
    return int(text)
