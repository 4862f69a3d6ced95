"""Finds a Triton Inference Server, starts it on a model repository, and stops it without leaving anything behind."""

from .access import ServerTLS
from .errors import ControlError, InstallationError, RepositoryError, ServerError, SettingsError, StartError
from .server import Server
from .settings import Settings

__all__ = [
    "ControlError",
    "InstallationError",
    "RepositoryError",
    "Server",
    "ServerError",
    "ServerTLS",
    "Settings",
    "SettingsError",
    "StartError",
]
