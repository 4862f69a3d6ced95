"""How to start a Triton."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from .access import ServerTLS, random_key, restrictions
from .errors import SettingsError, StartError

# Below the 30 s that platforms give before they kill, and that a photo has by default: what is stuck in a Triton that
# stops can still be sent to another one.
DRAIN_SECONDS = 20


@dataclass(frozen=True)
class Settings:
    """How to start a Triton.

    Attributes:
        repository: The model repository.
        host: The address to listen at, IPv4 or IPv6 (without brackets).
        http_port: For HTTP; 0 takes any free port, as for the other two.
        grpc_port: For gRPC.
        metrics_port: For Prometheus.
        tritonserver: The executable; without it, one is looked for.
        admin_key: What callers must send to load models, use shared memory, trace, or change the log; without it, a
            key that nobody knows.
        tls: Encrypts gRPC. HTTP, which Triton cannot encrypt, is for this machine only then.
        otlp_endpoint: The collector to which traces of all requests are sent, by OTLP over HTTP; None for no traces.
        supervised: Somebody replaces processes that end; those of ours end when they cannot be trusted any more.
        arguments: More arguments for Triton, as they are.
        verbose: Show Triton's log from the start, not only once it is ready.
    """

    repository: Path = Path("model_repository")
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    tritonserver: Path | None = None
    admin_key: str = field(default_factory=random_key, repr=False)
    tls: ServerTLS | None = None
    otlp_endpoint: str | None = None
    supervised: bool = False
    arguments: tuple[str, ...] = ()
    verbose: bool = False

    @property
    def http_host(self) -> str:
        """The address to listen at for HTTP."""
        return self.host if self.tls is None else "127.0.0.1"


def triton_arguments(settings: Settings) -> list[str]:
    """The command line for Triton, without what depends on the installation."""
    return [
        f"--model-repository={settings.repository}",
        f"--http-address={_http_address(settings.http_host)}",
        f"--grpc-address={in_url(settings.host)}",
        f"--metrics-address={_http_address(settings.host)}",
        f"--http-port={settings.http_port}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-port={settings.metrics_port}",
        f"--exit-timeout-secs={DRAIN_SECONDS}",
        # Our configurations are complete; completing them would start every Python model twice.
        "--disable-auto-complete-config",
        # Loads everything like the default mode, and lets the administrator replace models later.
        "--model-control-mode=explicit",
        "--load-model=*",
        # Or Triton would not be ready while a version is loaded beside the served one, and never again if that fails.
        "--strict-readiness=false",
        *restrictions(settings.admin_key),
        *(settings.tls.arguments() if settings.tls is not None else []),
        *(tracing_arguments(settings.otlp_endpoint) if settings.otlp_endpoint is not None else []),
        *settings.arguments,
    ]


def tracing_arguments(endpoint: str) -> list[str]:
    """What Triton is told so that it sends traces, below the caller's own where a request names one.

    Raises:
        SettingsError: The endpoint is no URL.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SettingsError(f"--otlp-endpoint is a URL such as http://localhost:4318, not '{endpoint}'.")
    url = endpoint.rstrip("/")
    url = url if url.endswith("/v1/traces") else f"{url}/v1/traces"
    settings = (
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        "rate=1",
        f"opentelemetry,url={url}",
        "opentelemetry,resource=service.name=triton",
    )
    return [f"--trace-config={setting}" for setting in settings]


def with_ports(settings: Settings) -> Settings:
    """Replaces 0 by free ports, and makes sure that the others are free."""
    with contextlib.ExitStack() as held:
        chosen = {}
        for name, host in (
            ("http_port", settings.http_host),
            ("grpc_port", settings.host),
            ("metrics_port", settings.host),
        ):
            wanted = getattr(settings, name)
            try:
                family = socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET
                listener = held.enter_context(socket.create_server((host, wanted), family=family))
            except OSError as error:
                flag = f"--{name.replace('_', '-')}"
                # Python adds the address to the system's words, and names that are not found have none.
                reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
                raise StartError(
                    f"Port {wanted} on {host} cannot be used ({reason}); "
                    f"stop what listens there, or choose another with {flag}."
                ) from error
            chosen[name] = listener.getsockname()[1]
    return replace(settings, **chosen)


def reachable(host: str) -> str:
    """Where to connect to a server that listens at `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def in_url(host: str) -> str:
    """A host as it stands before a port: IPv6 in brackets."""
    return f"[{host}]" if _is_ipv6(host) else host


def _http_address(host: str) -> str:
    # The HTTP library of Triton takes what has no such prefix for IPv4.
    return f"ipv6:{host}" if _is_ipv6(host) else host


def _is_ipv6(host: str) -> bool:
    return ":" in host
