"""Finds a Triton Inference Server, starts it on a model repository, supervises it, and cleans up after it."""

from .access import ServerTLS
from .errors import (
    InstallationError,
    ModelControlError,
    RepositoryError,
    ServingError,
    SettingsError,
    StartError,
    StopError,
)
from .server import Server
from .settings import Settings

__all__ = [
    "InstallationError",
    "ModelControlError",
    "RepositoryError",
    "Server",
    "ServerTLS",
    "ServingError",
    "Settings",
    "SettingsError",
    "StartError",
    "StopError",
]
