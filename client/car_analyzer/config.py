"""Settings as small frozen values, checked when they are made."""

from __future__ import annotations

import os
import random
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import ConfigurationError

if TYPE_CHECKING:
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
        path: What stands before `/v2` over HTTP, such as `/triton`; empty or with a leading slash.
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
            ConfigurationError: The URL has another form.
        """
        text = url if "://" in url else f"grpc://{url}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            several = "; several hosts need one DNS name, or a proxy before them" if "," in url else ""
            raise ConfigurationError(f"{url!r} is no URL: {error}{several}") from error
        if parts.username is not None or parts.password is not None:
            # The URL itself is left out of the message, which may end up in a log.
            raise ConfigurationError("credentials do not belong in the URL; send them with headers=")
        if parts.scheme not in PORTS:
            raise ConfigurationError(f"{url!r} starts with {parts.scheme}://; it must be one of {', '.join(PORTS)}")
        if not host or any(c.isspace() or not c.isprintable() for c in url):
            raise ConfigurationError(f"{url!r} names no host; write it like {DEFAULT_URL}")
        if "," in host:
            raise ConfigurationError(f"{url!r} names several hosts; they need one DNS name, or a proxy before them")
        if parts.query or parts.fragment:
            raise ConfigurationError(f"{url!r} has a query or a fragment, which mean nothing here")
        path = parts.path.rstrip("/")
        if path and parts.scheme.startswith("grpc"):
            raise ConfigurationError(f"{url!r} has a path, which gRPC does not know; http:// and https:// do")
        if port == 0:
            raise ConfigurationError(f"{url!r} has port 0")
        return cls(parts.scheme, host, port or PORTS[parts.scheme], path)

    @classmethod
    def default(cls) -> Endpoint:
        """The endpoint `$CAR_ANALYZER_URL` names, or `grpc://localhost:8001`."""
        return cls.parse(os.environ.get(URL_VARIABLE) or DEFAULT_URL)

    @property
    def is_grpc(self) -> bool:
        """Whether it speaks gRPC, and not HTTP."""
        return self.scheme.startswith("grpc")

    @property
    def is_secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.scheme.endswith("s")

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine by its usual names."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def authority(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a failed attempt is repeated. A call's timeout always has the last word.

    An attempt is repeated when nobody answers, when the server is too busy, and when it says that it is mending
    itself. The pause before each is drawn at random between zero and a bound that doubles: many clients that
    failed together do not come back together.

    Attributes:
        base_delay: The first bound, in seconds.
        max_delay: What the bound never passes, in seconds.
        attempts: How many attempts a call has at most; None for as many as its time allows, 1 for no repeating. From 2
            on, an attempt that meets a server which is being stopped does not count: the next one may meet another.
            Nor does one that nobody answers, where `reconnect_patience` is given: that is its limit then.
        connect_patience: For how many seconds a call goes on when nobody answers and nobody ever did on this
            client: then it is more likely a wrong URL than a pause.
        reconnect_patience: The same once the server has answered this client; None for as long as its time allows.

    Raises:
        ConfigurationError: A number is negative, or no attempt is left.
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
        """The pause in seconds after so many failed attempts, drawn anew at each call."""
        bound = min(self.max_delay, self.base_delay * 2.0 ** min(failures - 1, 60))
        return random.uniform(0, bound)  # noqa: S311 - spreads load, guards nothing

    def patience(self, *, answered: bool) -> float:
        """How long a call goes on, in seconds, while nobody answers."""
        if not answered:
            return self.connect_patience
        return float("inf") if self.reconnect_patience is None else self.reconnect_patience


@dataclass(frozen=True)
class TLS:
    """Files for `grpcs://` and `https://`, all PEM and all optional.

    Attributes:
        ca: The authorities to trust, in place of the usual ones.
        certificate: This client's own certificate chain, where the server asks for one.
        key: The certificate's private key.

    Raises:
        ConfigurationError: One of `certificate` and `key` comes without the other.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("a client's certificate and its key come together")

    @staticmethod
    def of(ca: str | None, certificate: str | None, key: str | None) -> TLS | None:
        """The files that a command line names, or None where it names none."""
        return TLS(ca, certificate, key) if ca or certificate or key else None

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The three files' contents in gRPC's order: authorities, key, certificate."""
        return _read(self.ca), _read(self.key), _read(self.certificate)

    def context(self) -> ssl.SSLContext:
        """The same three as Python's `ssl` wants them."""
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
    """Check a length of time.

    Raises:
        ConfigurationError: It is not a positive, finite number.
    """
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} is in seconds and more than zero, not {value!r}")
    return float(value)


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check headers that both protocols have to be able to send.

    Raises:
        ConfigurationError: A name or a value is not plain ASCII on one line.
    """
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", value):
            # The value is left out of the message: it may be a secret.
            raise ConfigurationError(f"header {name!r} cannot be sent: names and values are plain ASCII on one line")
    return dict(headers)
