"""The settings of a Triton, and its command line."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from .access import ServerTLS, random_key, restrictions
from .cores import cores
from .errors import SettingsError, StartError

# Below the 30 s grace period of platforms, and the client's default deadline of 30 s: a request that is stuck in a
# stopping Triton can still be retried on another one.
DRAIN_SECONDS = 20
# The kernel gives outgoing connections a port from here on; those below are free unless somebody listens on them.
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT = 15_000
_RANDOM = random.SystemRandom()  # programs that seed `random` in the same way would choose the same ports


@dataclass(frozen=True)
class Settings:
    """The settings of a Triton.

    Attributes:
        repository: The model repository.
        host: The address to listen on, IPv4 or IPv6 (without brackets).
        http_port: For HTTP; 0 chooses a free port, here and for the other two.
        grpc_port: For gRPC.
        metrics_port: For Prometheus.
        tritonserver: The executable; by default, it is searched for.
        admin_key: The key that callers need to load models, use shared memory, trace, or change the log; by default a
            random one.
        tls: Encrypts gRPC. HTTP, which Triton cannot encrypt, then listens on 127.0.0.1 only.
        otlp_endpoint: The collector for traces of all requests, by OTLP over HTTP; None for no traces.
        cores: The processor cores for which processes and threads are started, where the repository sets no number; by
            default all that this process may use.
        supervised: A supervisor replaces processes that end, so stalled processes of the models may end themselves.
        arguments: More arguments for Triton.
        verify: A public key; the repository is verified before Triton starts, and before `serve` itself loads a model.
        log_photos: Log a line for each photo: bytes, format, dimensions, milliseconds, result.
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
    cores: int = field(default_factory=cores)
    supervised: bool = False
    arguments: tuple[str, ...] = ()
    verify: Path | None = None
    log_photos: bool = False
    verbose: bool = False

    @property
    def http_host(self) -> str:
        """The address to listen on for HTTP."""
        return self.host if self.tls is None else "127.0.0.1"


def triton_arguments(settings: Settings) -> list[str]:
    """Triton's command line, without the arguments that depend on the installation."""
    return [
        f"--model-repository={settings.repository}",
        f"--http-address={_http_address(settings.http_host)}",
        f"--grpc-address={in_url(settings.host)}",
        f"--metrics-address={_http_address(settings.host)}",
        f"--http-port={settings.http_port}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-port={settings.metrics_port}",
        f"--exit-timeout-secs={DRAIN_SECONDS}",
        # Our configurations are complete; auto-completion would start every Python model twice.
        "--disable-auto-complete-config",
        # Loads all models, like the default mode, and allows the administrator to replace them later.
        "--model-control-mode=explicit",
        "--load-model=*",
        # Otherwise Triton is not ready while a second version is loading, and never again if that fails.
        "--strict-readiness=false",
        *restrictions(settings.admin_key),
        *(settings.tls.arguments() if settings.tls is not None else []),
        *(tracing_arguments(settings.otlp_endpoint) if settings.otlp_endpoint is not None else []),
        *settings.arguments,
    ]


def tracing_arguments(endpoint: str) -> list[str]:
    """Triton's arguments for tracing; if a request has a trace context, its trace continues the caller's.

    Raises:
        SettingsError: The endpoint is not a URL.
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
    """Replaces port 0 by free ports, and makes sure that the other ports are free.

    Raises:
        StartError: A port cannot be used.
    """
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
                listener = held.enter_context(_listen(host, wanted, family))
            except OSError as error:
                flag = f"--{name.replace('_', '-')}"
                # Python adds the address to the system's message, and has none for host names that are not found.
                reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
                raise StartError(
                    f"Port {wanted} on {host} cannot be used ({reason}); "
                    f"stop the program that uses it, or choose another with {flag}."
                ) from error
            chosen[name] = listener.getsockname()[1]
    return replace(settings, **chosen)


def _listen(host: str, port: int, family: socket.AddressFamily) -> socket.socket:
    """A listener; for port 0 on one that no outgoing connection can take before Triton listens on it."""
    last = int(_OUTGOING.read_text(encoding="ascii").split()[0]) - 1 if _OUTGOING.is_file() else 32_767
    for _ in range(100 if port == 0 and last > _FIRST_PORT else 0):
        try:
            return socket.create_server((host, _RANDOM.randint(_FIRST_PORT, last)), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return socket.create_server((host, port), family=family)


def reachable(host: str) -> str:
    """The address to connect to for a server that listens on `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def in_url(host: str) -> str:
    """A host in the form for URLs: IPv6 in brackets."""
    return f"[{host}]" if _is_ipv6(host) else host


def _http_address(host: str) -> str:
    # Triton's HTTP library treats addresses without this prefix as IPv4.
    return f"ipv6:{host}" if _is_ipv6(host) else host


def _is_ipv6(host: str) -> bool:
    return ":" in host
