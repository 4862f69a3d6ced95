"""Settings as small frozen values, validated when they are created."""

from __future__ import annotations

import os
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import ConfigurationError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

URL_VARIABLE = "CAR_ANALYZER_URL"
DEFAULT_URL = "grpc://localhost:8001"
PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 8000}


@dataclass(frozen=True)
class Endpoint:
    """Where a Triton listens.

    Attributes:
        scheme: `grpc`, `grpcs`, `http` or `https`.
        host: A name or an address; IPv6 without its brackets.
        port: 1 to 65535.
        path: HTTP only: the path before `/v2`, such as `/triton`; empty or with a leading slash.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read a URL such as `localhost:8001`, `grpcs://triton` or `https://[::1]:8000/prefix`.

        Args:
            url: Scheme (default `grpc`), host, port (default 8001 for gRPC, 8000 for HTTP), and for HTTP a path.

        Raises:
            ConfigurationError: The URL is invalid.
        """
        text = url if "://" in url else f"grpc://{url}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            several = "; use one DNS name for several hosts, or a proxy" if "," in url else ""
            raise ConfigurationError(f"{url!r} is not a valid URL: {error}{several}") from error
        if parts.username is not None or parts.password is not None:
            # The message does not contain the URL: it may be logged.
            raise ConfigurationError("credentials do not belong in the URL; send them with headers=")
        if parts.scheme not in PORTS:
            raise ConfigurationError(f"{url!r} starts with {parts.scheme}://; it must be one of {', '.join(PORTS)}")
        if not host or any(c.isspace() or not c.isprintable() for c in url):
            raise ConfigurationError(f"{url!r} names no host; write it like {DEFAULT_URL}")
        if "," in host:
            raise ConfigurationError(f"{url!r} names several hosts; use one DNS name for them, or a proxy")
        if parts.query or parts.fragment:
            raise ConfigurationError(f"{url!r} has a query or a fragment, which are not supported")
        path = parts.path.rstrip("/")
        if path and parts.scheme.startswith("grpc"):
            raise ConfigurationError(f"{url!r} has a path, which gRPC does not support; http:// and https:// do")
        if port == 0:
            raise ConfigurationError(f"{url!r} has port 0")
        return cls(parts.scheme, host, port or PORTS[parts.scheme], path)

    @classmethod
    def default(cls) -> Endpoint:
        """The endpoint `$CAR_ANALYZER_URL` names, or `grpc://localhost:8001`."""
        return cls.parse(os.environ.get(URL_VARIABLE) or DEFAULT_URL)

    @property
    def is_grpc(self) -> bool:
        """Whether the protocol is gRPC, and not HTTP."""
        return self.scheme.startswith("grpc")

    @property
    def is_secure(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme.endswith("s")

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by one of its usual names."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def authority(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Retry:
    """How failed attempts are repeated: exponential back-off with full jitter, within the call's timeout.

    An attempt is repeated when no server answers, when the server is overloaded, and when a process of the server's
    restarts. The pause before each repetition is random between zero and a bound that doubles, so that many clients
    which failed together do not return together.

    Attributes:
        base_delay: The first bound, in seconds.
        max_delay: The largest bound, in seconds.
        attempts: The maximum number of attempts; None: only the timeout limits them; 1: no repetition. From 2 on, an
            attempt does not count if the server is shutting down, because the next one may reach another server. Nor
            does it count if no server answers and `reconnect_patience` is given, which is the limit in that case.
        connect_patience: How many seconds a call continues while no server answers, if none has ever answered this
            client: the URL is probably wrong.
        reconnect_patience: The same after a server has answered this client; None: until the timeout.

    Raises:
        ConfigurationError: A number is negative, or `attempts` is less than 1.
    """

    base_delay: float = 0.05
    max_delay: float = 2.0
    attempts: int | None = None
    connect_patience: float = 2.0
    reconnect_patience: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.base_delay, self.max_delay, self.connect_patience, self.reconnect_patience or 0)
        if not all(number >= 0 for number in numbers):
            raise ConfigurationError(f"delays and patience are seconds, zero or more: {self}")
        if self.attempts is not None and self.attempts < 1:
            raise ConfigurationError(f"a call needs at least one attempt: {self}")

    def delay(self, failures: int) -> float:
        """A random pause in seconds after so many failed attempts."""
        bound = min(self.max_delay, self.base_delay * 2.0 ** min(failures - 1, 60))
        return random.uniform(0, bound)  # noqa: S311 - spreads load, not a secret

    def patience(self, *, answered: bool) -> float:
        """How many seconds a call continues while no server answers."""
        if not answered:
            return self.connect_patience
        return float("inf") if self.reconnect_patience is None else self.reconnect_patience


@dataclass(frozen=True)
class TLS:
    """Files for `grpcs://` and `https://`, all PEM and all optional.

    Attributes:
        ca: The certificate authorities to trust, instead of the system's.
        certificate: This client's own certificate chain, if the server requires one.
        key: The certificate's private key.

    Raises:
        ConfigurationError: Only one of `certificate` and `key` is given.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("a client's certificate needs its key, and a key its certificate")

    @staticmethod
    def of(ca: str | None, certificate: str | None, key: str | None) -> TLS | None:
        """The files from a command line, or None if it names none."""
        return TLS(ca, certificate, key) if ca or certificate or key else None

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The three files' contents in gRPC's order: authorities, key, certificate."""
        return _read(self.ca), _read(self.key), _read(self.certificate)

    def context(self) -> ssl.SSLContext:
        """The same as a context for Python's `ssl`."""
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise ConfigurationError(f"cannot use these TLS files, {self}: {error}") from error
        return context


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {os.fspath(path or '')}: {error.strerror}") from error


def seconds(value: float, name: str = "timeout") -> float:
    """Validate a duration.

    Raises:
        ConfigurationError: It is not a positive, finite number.
    """
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} must be a number of seconds above zero, not {value!r}")
    return float(value)


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Validate headers, which both protocols must be able to send.

    Raises:
        ConfigurationError: A name or a value is not plain ASCII on one line.
    """
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", value):
            # The message does not contain the value: it may be a secret.
            raise ConfigurationError(f"header {name!r} cannot be sent: names and values are plain ASCII on one line")
    return dict(headers)
