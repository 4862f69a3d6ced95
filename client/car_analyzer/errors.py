"""Every error that this package raises deliberately.

CarAnalyzerError
├── PhotoError             the photo is at fault: unreadable, not an image, too large   (also a ValueError)
├── ConfigurationError     a setting is: the URL, a timeout, an unsuitable model        (also a ValueError)
└── ServiceError           the service is at fault
    ├── UnreachableError       no server answers at the URL                             (also a ConnectionError)
    ├── OverloadedError        the server is too busy: UNAVAILABLE, 503, 429
    ├── DeadlineExceededError  no answer within the timeout                             (also a TimeoutError)
    ├── ModelNotReadyError     the model is unknown to the server, or not loaded
    └── ServerError            any other failure of the server
"""


class CarAnalyzerError(Exception):
    """The base class of all errors that this package raises deliberately."""


class PhotoError(CarAnalyzerError, ValueError):
    """The photo cannot be analysed; other photos can."""


class ConfigurationError(CarAnalyzerError, ValueError):
    """A setting is invalid, or the client cannot read the served model's answers."""


class ServiceError(CarAnalyzerError):
    """The service did not answer; the photo may be fine."""


class UnreachableError(ServiceError, ConnectionError):
    """No server answers at the URL."""


class OverloadedError(ServiceError):
    """The server rejected the photo because it is too busy; it may accept it later."""


class DeadlineExceededError(ServiceError, TimeoutError):
    """There was no answer within the timeout."""


class ModelNotReadyError(ServiceError):
    """The server answers, but the model is unknown, not loaded, or unloaded."""


class ServerError(ServiceError):
    """The server failed, or its answer cannot be read."""
