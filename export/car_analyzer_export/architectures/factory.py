"""Networks that a factory in the user's own code builds."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import NetworkError, reason
from ..torchvision_operators import with_torchvision_operators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType


def call_factory(architecture: str, kwargs: Mapping[str, Any]) -> torch.nn.Module:
    """Calls the factory that `path/to/file.py:factory` or `package.module:factory` names.

    Raises:
        NetworkError: The file, module or factory does not exist, fails, or returns something else.
    """
    source, _, name = architecture.rpartition(":")
    if not source or not name:
        raise NetworkError(
            f"The architecture '{architecture}' is not of the form FILE.py:FACTORY, MODULE:FACTORY, torchvision:NAME "
            "or timm:NAME, nor is it 'auto'."
        )
    factory = _factory(source, name)
    try:
        network = with_torchvision_operators(lambda: factory(**kwargs))
    except Exception as error:
        raise NetworkError(
            f"The architecture '{architecture}' failed: {type(error).__name__}: {reason(error)}."
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise NetworkError(
            f"The architecture '{architecture}' returned a {type(network).__name__}, not a torch.nn.Module."
        )
    return network


def import_source(source: str) -> ModuleType:
    """Imports `path/to/file.py` or `package.module`.

    Raises:
        NetworkError: It does not exist, or fails.
    """
    try:
        if source.endswith(".py"):
            return with_torchvision_operators(lambda: _import_file(Path(source)))
        return with_torchvision_operators(lambda: importlib.import_module(source))
    except NetworkError:
        raise
    except Exception as error:
        raise NetworkError(f"'{source}' cannot be imported: {type(error).__name__}: {reason(error)}.") from error


def _factory(source: str, name: str) -> Callable[..., Any]:
    factory = getattr(import_source(source), name, None)
    if not callable(factory):
        raise NetworkError(f"'{source}' has no function or class '{name}'.")
    return factory  # type: ignore[no-any-return]


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise NetworkError(f"The architecture's file {path} does not exist.")
    spec = importlib.util.spec_from_file_location(f"car_analyzer_architecture_{path.stem}", path)
    assert spec is not None  # noqa: S101 - a .py file always has a loader
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look it up
    with _importable(path.resolve().parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets the file import its neighbours, as a script can."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
