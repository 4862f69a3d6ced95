"""The settings, from flags and environment variables, and their validation."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from pathlib import Path  # noqa: TC003 - pydantic reads it at runtime
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from car_analyzer import TLS, ConfigurationError

PREFIX = "CAR_ANALYZER_"
# Everybody who can list processes sees the command line.
NOT_A_FLAG = {"token"}
# As for `car-analyzer serve`, which cannot be imported here.
ADMIN_KEY = re.compile(r"[A-Za-z0-9._~-]{16,}")

EPILOG = """\
Each flag has an environment variable: --max-photos is CAR_ANALYZER_MAX_PHOTOS. Flags take precedence. The token is read
from CAR_ANALYZER_TOKEN or from a file, never from the command line.

examples:
  car-analyzer gateway
  car-analyzer gateway --url grpc://triton:8001 --host 0.0.0.0
  car-analyzer gateway --cors-origins https://app.example,https://www.example --token-file /run/secrets/token
  car-analyzer gateway --repository model_repository      also start a Triton; stops both together
  curl -F image=@car.jpg http://localhost:5000/analyze

exit codes: 0 stopped by a signal, 1 could not start, or its Triton stopped by itself, 2 wrong usage
"""


class Settings(BaseSettings):
    """The gateway's settings. Those not given come from `CAR_ANALYZER_*` variables, or have their defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    url: str = Field("grpc://localhost:8001", description="Triton's address: grpc://, grpcs://, http:// or https://")
    tls_ca: str | None = Field(None, description="certificate authorities to trust, PEM; default: the system's")
    tls_cert: str | None = Field(None, description="the gateway's certificate chain as a client, PEM; default: none")
    tls_key: str | None = Field(None, description="the certificate's private key, PEM; default: none")
    model: str = Field("car_analyzer", description="name of the ensemble")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(5000, ge=0, le=65535, description="port to listen on; 0 takes any free port")
    timeout: float = Field(30.0, gt=0, allow_inf_nan=False, description="seconds for an answer, after the upload")
    upload_timeout: float = Field(30.0, gt=0, allow_inf_nan=False, description="seconds for a client to send a photo")
    max_photo_bytes: ByteSize = Field(ByteSize(20_000_000), ge=1, description="maximum size of a photo")
    max_photos: int = Field(16, ge=1, description="maximum number of photos in one request")
    max_held_bytes: ByteSize = Field(
        ByteSize(32_000_000), ge=1, description="maximum size of all photos in memory; further uploads wait, unread"
    )
    max_waiting: int = Field(256, ge=1, description="maximum number of waiting photos; more are rejected")
    max_connections: int = Field(1000, ge=1, description="maximum number of connections; more are rejected")
    token: SecretStr | None = Field(None, description="bearer token that callers have to send")
    token_file: Path | None = Field(None, description="file with the bearer token; default: no token")
    protect: Literal["analyze", "all"] = Field("analyze", description="paths that need the token: analyze, or all")
    admin_key_file: Path | None = Field(
        None,
        description="file with the key of Triton's administrators, for `car-analyzer publish --shadow`; default: none",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="allowed CORS origins, separated by commas, or *; default: none"
    )
    keep_alive: int = Field(75, ge=1, description="seconds until an idle connection is closed")
    drain_timeout: float = Field(30.0, ge=0, description="seconds for requests in flight at shutdown")
    otlp_endpoint: str | None = Field(
        None, description="OTLP/HTTP collector for traces, such as http://localhost:4318; default: none"
    )
    access_log: Literal["off", "requests", "answers"] = Field(
        "requests", description="a log line for each request: off, requests, or answers (also photo sizes and labels)"
    )
    collect: str | None = Field(
        None,
        min_length=1,
        description="folder or URL such as s3://bucket/cars, to keep photos and feedback in; default: none",
    )
    collect_share: float = Field(0.01, ge=0, le=1, description="share of the photos that are kept by chance, or 1%")
    collect_photos: int = Field(10_000, ge=1, description="maximum number of photos that are kept")
    collect_bytes: ByteSize = Field(ByteSize(5_000_000_000), ge=1, description="maximum size of all that is kept")
    collect_days: float = Field(30.0, gt=0, allow_inf_nan=False, description="days after which photos are deleted")
    collect_recent_bytes: ByteSize = Field(
        ByteSize(64_000_000), ge=0, description="maximum size of the recent photos in memory that feedback finds"
    )
    drift: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of photos to compare with those of the last check; 0: off, 1: all",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error; debug also logs health checks"
    )

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: Any) -> Any:
        # Kubernetes sets CAR_ANALYZER_PORT to such a URL in every pod if there is a service named `car-analyzer`.
        return 5000 if isinstance(value, str) and value.startswith(("tcp://", "udp://")) else value

    @field_validator("collect_share", "drift", mode="before")
    @classmethod
    def _read_percentage(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().endswith("%"):
            try:
                return float(value.strip().removesuffix("%")) / 100
            except ValueError:
                return value
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            scheme, _, host = origin.partition("://")
            if origin != "*" and (scheme not in ("http", "https") or not host or "/" in host):
                raise ValueError(
                    f"{origin!r} is not a valid origin; write it like https://app.example or http://localhost:3000"
                )
        return value

    @model_validator(mode="after")
    def _check_sizes(self) -> Settings:
        if self.max_held_bytes < self.max_photo_bytes:
            raise ValueError("--max-held-bytes must not be less than --max-photo-bytes")
        if self.token is not None and self.token_file is not None:
            raise ValueError(f"give {PREFIX}TOKEN or --token-file, not both")
        return self

    @property
    def tls(self) -> TLS | None:
        """The TLS files for the connection to Triton.

        Raises:
            ConfigurationError: Only one of certificate and key is given.
        """
        return TLS.of(self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def max_body_bytes(self) -> int:
        """The maximum size of a request body: all photos, and the form around them."""
        return self.max_photos * self.max_photo_bytes + 1_000_000

    def read_token(self) -> bytes | None:
        """The bearer token, or None without one.

        Raises:
            ConfigurationError: The file cannot be read, or the token is invalid.
        """
        if self.token is not None:
            token = self.token.get_secret_value()
        elif self.token_file is not None:
            token = _read_secret(self.token_file, "token")
        else:
            return None
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigurationError("the token must be one word of printable ASCII characters")
        return token.encode()

    def read_admin_key(self) -> bytes | None:
        """The administrators' key, or None without one.

        Raises:
            ConfigurationError: The file cannot be read, or the key is invalid.
        """
        if self.admin_key_file is None:
            return None
        key = _read_secret(self.admin_key_file, "key").strip()
        if not ADMIN_KEY.fullmatch(key):
            raise ConfigurationError(f"the key in {self.admin_key_file} must be 16 or more of A-Z a-z 0-9 . _ ~ -")
        return key.encode()


def read_settings(arguments: dict[str, Any]) -> Settings:
    """Create the settings from parsed flags and the environment.

    Raises:
        ConfigurationError: A value is invalid, or a variable misspelt; the message says which.
    """
    _reject_misspelt_variables()
    try:
        return Settings(**arguments)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(detail) for detail in error.errors())) from None


def _reject_misspelt_variables() -> None:
    """Reject variables that are almost a setting. Others are left alone: Kubernetes and `serve` have theirs."""
    known = [name.upper() for name in Settings.model_fields]
    for name in sorted(name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX)):
        meant = [] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if meant:
            raise ConfigurationError(f"there is no setting {PREFIX}{name}; did you mean {PREFIX}{meant[0]}?")


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line, with a flag for each setting."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Serve POST /analyze and GET /health in front of a Triton.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in Settings.model_fields.items():
        if name in NOT_A_FLAG:
            continue
        description = field.description or ""
        if "default:" not in description:
            description += f"; default: {field.default}"
        parser.add_argument(_flag(name), metavar=name.rpartition("_")[2].upper(), help=description.replace("%", "%%"))
    return parser


def _read_secret(file: Path, kind: str) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the {kind} file {file}: {error}") from error


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _explain(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    name = str(detail["loc"][0])
    value = "" if name in NOT_A_FLAG else f", not {detail['input']!r}"
    return f"{_flag(name)} ({PREFIX}{name.upper()}): {message}{value}"
