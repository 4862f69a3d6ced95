"""What can go wrong with a server.

ServerError
├── InstallationError   no tritonserver, or not a complete one
├── SettingsError       a file or a value it was started with is wrong
├── RepositoryError     the model repository is missing, broken or not exported yet
├── StartError          Triton did not start, or stopped by itself
└── ControlError        a running Triton refused to load or unload a model
"""


class ServerError(Exception):
    """Base of everything raised on purpose; the message is a sentence for the user."""


class InstallationError(ServerError):
    """There is no Triton that can be started."""


class SettingsError(ServerError):
    """A setting is wrong."""


class RepositoryError(ServerError):
    """The model repository cannot be served."""


class StartError(ServerError):
    """Triton did not become ready, or stopped by itself."""


class ControlError(ServerError):
    """A running Triton did not do what it was told."""
