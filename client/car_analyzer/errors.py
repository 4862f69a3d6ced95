"""Every error this package raises on purpose.

CarAnalyzerError
├── PhotoError             the photo is at fault: unreadable, not an image, too large   (also a ValueError)
├── ConfigurationError     a setting is: the URL, a timeout, a model of another make    (also a ValueError)
└── ServiceError           the service is at fault
    ├── UnreachableError       nobody answers at the URL                                (also a ConnectionError)
    ├── OverloadedError        it has too much to do: UNAVAILABLE, 503, 429
    ├── DeadlineExceededError  no answer in the time given                              (also a TimeoutError)
    ├── ModelNotReadyError     the model is unknown there, or not loaded
    └── ServerError            anything else that went wrong on its side
"""


class CarAnalyzerError(Exception):
    """The root of the tree: catches whatever this package raises on purpose."""


class PhotoError(CarAnalyzerError, ValueError):
    """The photo cannot be analysed; another photo can."""


class ConfigurationError(CarAnalyzerError, ValueError):
    """A setting is wrong, or the served model is not one that this client understands."""


class ServiceError(CarAnalyzerError):
    """The service did not give an answer; the photo may be fine."""


class UnreachableError(ServiceError, ConnectionError):
    """Nobody answers at the URL."""


class OverloadedError(ServiceError):
    """The server refused the photo because it is too busy; later it may take it."""


class DeadlineExceededError(ServiceError, TimeoutError):
    """The time given ran out before there was an answer."""


class ModelNotReadyError(ServiceError):
    """The server is there, the model is not: unknown, not loaded, or unloaded."""


class ServerError(ServiceError):
    """The server failed, or answered with something that is not an answer."""
