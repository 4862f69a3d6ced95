"""What can go wrong with a server.

ServingError
├── InstallationError   tritonserver is missing or incomplete
├── SettingsError       a file or value of the settings is invalid
├── RepositoryError     the model repository is missing, broken or not exported yet
├── StartError          Triton did not start, or ended
├── StopError           a server in the background does not stop
└── ModelControlError   the running Triton rejected loading or unloading a model
"""


class ServingError(Exception):
    """Base of all errors that are raised deliberately; the message is a sentence for the user."""


class InstallationError(ServingError):
    """There is no Triton that can be started."""


class SettingsError(ServingError):
    """A setting is invalid."""


class RepositoryError(ServingError):
    """The model repository cannot be served."""


class StartError(ServingError):
    """Triton did not become ready, or ended."""


class StopError(ServingError):
    """A server in the background did not end in time."""


class ModelControlError(ServingError):
    """The running Triton rejected a model control request, or did not answer it."""
