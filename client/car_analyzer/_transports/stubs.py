"""tritonclient's generated gRPC stubs, without the rest of tritonclient.

Importing `tritonclient.grpc` imports numpy, which takes longer than an analysis. The stubs do not need it.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import Any

PACKAGE = "tritonclient.grpc"
STUBS = ("model_config_pb2", "service_pb2", "service_pb2_grpc")


def _import_stubs() -> None:
    """Import the stubs with an empty package in place of theirs, which does not run its `__init__`."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    package = importlib.util.module_from_spec(spec)
    this_thread, done = threading.get_ident(), threading.Event()

    def from_real_package(name: str) -> Any:
        # Another thread may import the package meanwhile. It gets everything else from the real one.
        if name in STUBS or threading.get_ident() == this_thread:
            raise AttributeError(name)
        done.wait()
        return getattr(importlib.import_module(PACKAGE), name)

    package.__dict__["__getattr__"] = from_real_package
    sys.modules[PACKAGE] = package
    try:
        for stub in STUBS:
            importlib.import_module(f"{PACKAGE}.{stub}")
    finally:
        del sys.modules[PACKAGE]
        done.set()


if PACKAGE not in sys.modules:
    _import_stubs()
service_pb2: Any = importlib.import_module(f"{PACKAGE}.service_pb2")
service_pb2_grpc: Any = importlib.import_module(f"{PACKAGE}.service_pb2_grpc")
