"""Access control: Triton's administrative APIs need a key, and its traffic can be encrypted."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from .errors import SettingsError

KEY_VARIABLE = "CAR_ANALYZER_ADMIN_KEY"
KEY_HEADER = "admin-key"
# The name of the same header in gRPC, with Triton's prefix.
GRPC_KEY_HEADER = f"triton-grpc-protocol-{KEY_HEADER}"
# With each of these APIs, a caller can change the server, read its memory, or make it write files.
RESTRICTED_APIS = ("model-repository", "shared-memory", "trace", "logging")

_KEY = re.compile(r"[A-Za-z0-9._~-]{16,}")


@dataclass(frozen=True)
class ServerTLS:
    """The PEM files for TLS on gRPC.

    Attributes:
        certificate: The server's certificate chain.
        key: The certificate's private key.
        client_ca: Callers need a certificate of these authorities; without it, any caller may connect.

    Raises:
        SettingsError: A file cannot be read.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        for file in (self.certificate, self.key, self.client_ca):
            if file is not None and b"-----BEGIN" not in _read(file):
                raise SettingsError(f"{file} is not a PEM file: it has no line that starts with -----BEGIN.")

    def arguments(self) -> list[str]:
        """Triton's arguments for TLS."""
        files = [f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_ca is None:
            return ["--grpc-use-ssl=true", *files]
        return ["--grpc-use-ssl-mutual=true", *files, f"--grpc-root-cert={self.client_ca}"]


def random_key() -> str:
    """A random key."""
    return secrets.token_urlsafe(32)


def read_key(file: Path | None) -> str | None:
    """The administrator's key from a file, or else from `$CAR_ANALYZER_ADMIN_KEY`; None if there is none.

    Raises:
        SettingsError: The file cannot be read, or the key is too short or has characters that headers cannot contain.
    """
    text = os.environ.get(KEY_VARIABLE) if file is None else _read(file).decode("utf-8", "replace")
    if not text:
        if file is not None:
            raise SettingsError(f"The key file {file} is empty.")
        return None
    key = text.strip()
    if not _KEY.fullmatch(key):
        # Without the key itself, since messages are logged.
        raise SettingsError(
            f"The administrator's key in {file or f'${KEY_VARIABLE}'} must be 16 or more of A-Z a-z 0-9 . _ ~ - ; "
            'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return key


def restrictions(key: str) -> list[str]:
    """Triton's arguments that restrict its administrative APIs to callers with the key."""
    rule = f"{','.join(RESTRICTED_APIS)}:{KEY_HEADER}={key}"
    return [f"--http-restricted-api={rule}", f"--grpc-restricted-protocol={rule}"]


def hide_in_process_list(pid: int, secret: str) -> bool:
    """Overwrites a secret in the command line of a child, which every user of the machine can read.

    Triton accepts keys only on its command line. Call this after Triton has parsed and copied them.

    Returns:
        Whether the secret is hidden. The system may not allow it.
    """
    process = Path("/proc") / str(pid)
    try:
        # The addresses of the arguments in the child's memory: fields 48 and 49 of proc_pid_stat(5).
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with (process / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            line = memory.read(end - start)
            memory.seek(start)
            memory.write(line.replace(secret.encode(), b"*" * len(secret)))
        return secret.encode() not in (process / "cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return False


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error
