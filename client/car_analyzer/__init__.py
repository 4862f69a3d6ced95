"""Classify photos of cars with a Triton: clean or dirty, intact or damaged.

from car_analyzer import CarAnalyzer

with CarAnalyzer("grpc://localhost:8001") as analyzer:
    print(analyzer.analyze("car.jpg").to_dict())
"""

from ._client import AsyncCarAnalyzer
from ._photo import Photo
from ._results import Analysis, Failure, Head, Health
from ._sync import CarAnalyzer
from ._version import __version__
from .config import TLS, Retry
from .errors import (
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    ServerError,
    ServiceError,
    UnreachableError,
)

__all__ = [
    "TLS",
    "Analysis",
    "AsyncCarAnalyzer",
    "CarAnalyzer",
    "CarAnalyzerError",
    "ConfigurationError",
    "DeadlineExceededError",
    "Failure",
    "Head",
    "Health",
    "ModelNotReadyError",
    "OverloadedError",
    "Photo",
    "PhotoError",
    "Retry",
    "ServerError",
    "ServiceError",
    "UnreachableError",
    "__version__",
]
