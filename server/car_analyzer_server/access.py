"""Who may do what: Triton's administration is closed to everybody who has no key, and its traffic can be encrypted."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from .errors import SettingsError

KEY_VARIABLE = "CAR_ANALYZER_ADMIN_KEY"
KEY_HEADER = "admin-key"
# What gRPC callers name the same header: Triton puts this prefix before it.
GRPC_KEY_HEADER = f"triton-grpc-protocol-{KEY_HEADER}"
# Each of these lets a caller change the server, read its memory, or have it write files.
RESTRICTED_APIS = ("model-repository", "shared-memory", "trace", "logging")

_KEY = re.compile(r"[A-Za-z0-9._~-]{16,}")


@dataclass(frozen=True)
class ServerTLS:
    """PEM files with which gRPC is encrypted.

    Attributes:
        certificate: The server's certificate chain.
        key: The certificate's private key.
        client_ca: The authorities whose certificates callers must show; without it, any caller may connect.

    Raises:
        SettingsError: A file cannot be read.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        for file in (self.certificate, self.key, self.client_ca):
            if file is not None and b"-----BEGIN" not in _read(file):
                raise SettingsError(f"{file} is no PEM file: it has no line that starts with -----BEGIN.")

    def arguments(self) -> list[str]:
        """What Triton is told about it."""
        files = [f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_ca is None:
            return ["--grpc-use-ssl=true", *files]
        return ["--grpc-use-ssl-mutual=true", *files, f"--grpc-root-cert={self.client_ca}"]


def random_key() -> str:
    """A key that nobody knows."""
    return secrets.token_urlsafe(32)


def read_key(file: Path | None) -> str | None:
    """The administrator's key from a file, or else from `$CAR_ANALYZER_ADMIN_KEY`; None if there is none.

    Raises:
        SettingsError: The file cannot be read, or the key is too short or has characters that no header can carry.
    """
    text = os.environ.get(KEY_VARIABLE) if file is None else _read(file).decode("utf-8", "replace")
    if not text:
        if file is not None:
            raise SettingsError(f"The key file {file} is empty.")
        return None
    key = text.strip()
    if not _KEY.fullmatch(key):
        # The key itself is left out: messages end up in logs.
        raise SettingsError(
            f"The administrator's key in {file or f'${KEY_VARIABLE}'} must be 16 or more of A-Z a-z 0-9 . _ ~ - ; "
            'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return key


def restrictions(key: str) -> list[str]:
    """What Triton is told to keep its administration to those who send the key."""
    rule = f"{','.join(RESTRICTED_APIS)}:{KEY_HEADER}={key}"
    return [f"--http-restricted-api={rule}", f"--grpc-restricted-protocol={rule}"]


def hide_in_process_list(pid: int, secret: str) -> bool:
    """Overwrites a secret in the command line of a child, which every user of the machine may read.

    Triton takes keys on its command line only. It copies them while it parses it, so this must come later.

    Returns:
        Whether the secret is gone. The system may forbid it.
    """
    process = Path("/proc") / str(pid)
    try:
        # Where the arguments lie in the child's memory: fields 48 and 49 of proc_pid_stat(5).
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
