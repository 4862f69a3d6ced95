"""Photos behind URLs, in any storage that fsspec can read."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from .errors import ConfigurationError, PhotoError

EXTRA = "'car-analyzer[bulk]'"
INSTALL = f"pip install {EXTRA}"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# What has fsspec's drivers, for pip.
_DRIVERS = {
    **dict.fromkeys(("http", "https"), EXTRA),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs"), "adlfs"),
}


def is_url(name: str) -> bool:
    """Whether a name is a URL, and not a path."""
    return _SCHEME.match(name) is not None


def read_url(url: str) -> bytes:
    """The content of a URL.

    Raises:
        PhotoError: It cannot be read.
        ConfigurationError: A library is missing.
    """
    try:
        system, path = file_system(url)
        return bytes(system.cat_file(path))
    except ConfigurationError:
        raise
    except Exception as error:
        # Storage libraries have errors of their own. Any of them concerns only this photo.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = os.strerror(errno.ENOENT)
        raise PhotoError(f"cannot read {url}: {reason}", code="photo.unreadable") from error


def file_system(url: str) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and the path in it.

    Raises:
        ConfigurationError: A library is missing.
    """
    try:
        import fsspec
    except ImportError as error:
        raise ConfigurationError(f"{url} needs fsspec, which is not installed: {INSTALL}") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        scheme = url.partition(":")[0].lower()
        driver = _DRIVERS.get(scheme)
        raise ConfigurationError(
            f"{scheme}:// needs a library that is missing: " + (f"pip install {driver}" if driver else str(error))
        ) from error
    return system, path
