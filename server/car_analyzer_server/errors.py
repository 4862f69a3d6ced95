"""What can go wrong with a server.

ServingError
├── InstallationError   no tritonserver, or not a complete one
├── SettingsError       a file or a value it was started with is wrong
├── RepositoryError     the model repository is missing, broken or not exported yet
├── StartError          Triton did not start, or stopped by itself
└── ModelControlError        a running Triton refused to load or unload a model
"""


class ServingError(Exception):
    """Base of everything raised on purpose; the message is a sentence for the user."""


class InstallationError(ServingError):
    """There is no Triton that can be started."""


class SettingsError(ServingError):
    """A setting is wrong."""


class RepositoryError(ServingError):
    """The model repository cannot be served."""


class StartError(ServingError):
    """Triton did not become ready, or stopped by itself."""


class ModelControlError(ServingError):
    """A running Triton did not do what it was told."""
