"""Classify photos of cars with a Triton: clean or dirty, intact or damaged.

from car_analyzer import CarAnalyzer

with CarAnalyzer("grpc://localhost:8001") as analyzer:
    print(analyzer.analyze("car.jpg").to_dict())
"""

import importlib
import typing

from ._photo import Photo
from ._results import Analysis, Failure, Head, Health
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

if typing.TYPE_CHECKING:
    from ._client import AsyncCarAnalyzer
    from ._explanation import Explanation
    from ._geometry import Box
    from ._sync import CarAnalyzer

__all__ = [
    "TLS",
    "Analysis",
    "AsyncCarAnalyzer",
    "Box",
    "CarAnalyzer",
    "CarAnalyzerError",
    "ConfigurationError",
    "DeadlineExceededError",
    "Explanation",
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


def __getattr__(name: str) -> typing.Any:
    # The clients need asyncio and explanations numpy, which take longer to import than all the rest;
    # `car-analyzer --help` needs neither.
    modules = {
        "AsyncCarAnalyzer": "._client",
        "Box": "._geometry",
        "CarAnalyzer": "._sync",
        "Explanation": "._explanation",
    }
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(modules[name], __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
