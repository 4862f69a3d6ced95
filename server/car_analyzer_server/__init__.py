"""Finds a Triton Inference Server, starts it on a model repository, and stops it without leaving anything behind."""

from .errors import InstallationError, RepositoryError, ServerError, StartError
from .server import Server, Settings

__all__ = ["InstallationError", "RepositoryError", "Server", "ServerError", "Settings", "StartError"]
