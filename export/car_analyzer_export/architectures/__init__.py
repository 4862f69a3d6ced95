"""Builds the network that a checkpoint belongs to, and loads it.

    auto                        found by the names and shapes of the weights
    torchvision:resnet18        an image classifier of torchvision
    timm:efficientnet_b0        one of timm
    path/to/file.py:factory     made by a function or class in a file
    package.module:factory      or in an installed module

Nothing is downloaded, and no code from a checkpoint runs.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError
from . import zoo
from .auto import fitting_names, identify
from .factory import call_factory, import_source
from .fit import Built, fit
from .suspects import looks_like
from .weights import Misfit, load_weights, match_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    import torch

    from ..checkpoints.model import StateDict

__all__ = ["AUTO", "Built", "build", "script_of"]

AUTO = "auto"


def build(
    architecture: str,
    kwargs: Mapping[str, Any],
    weights: StateDict,
    *,
    hint: str | None = None,
    images: Callable[[], torch.Tensor] | None = None,
) -> Built:
    """Builds the network that an architecture names, and loads a checkpoint's weights into it, strictly.

    Args:
        architecture: One of the forms above.
        kwargs: For the network's factory. For torchvision and timm, the number of classes comes from the weights.
        weights: The checkpoint. A prefix such as `module.` is removed if the network's names lack it.
        hint: For `auto`, a name stored beside the weights; it decides between networks that fit.
        images: For `auto`, returns natural pictures as the network gets them, float32 [batch, 3, height, width]; on
            them, batch-norm statistics decide between networks that fit.

    Raises:
        NetworkError: There is no such network, or the weights belong to another one.
    """
    if architecture == AUTO:
        return identify(weights, kwargs, hint, images)
    source, _, name = architecture.partition(":")
    try:
        if source in zoo.SOURCES and name:
            return fit(source, name, weights, kwargs).load()
        network = call_factory(architecture, kwargs)
        renamed, notes = match_names(weights, network.state_dict().keys())
        load_weights(network, renamed)
        return Built(network, architecture, notes)
    except Misfit as error:
        raise NetworkError(f"{architecture}: {error}.{_likely(weights, architecture)}") from error


def script_of(architecture: str) -> Callable[[], ModuleType] | None:
    """Returns a function that imports, once, the file or module of an architecture; None for other architectures."""
    source = architecture.rpartition(":")[0]
    return functools.cache(lambda: import_source(source)) if source and source not in zoo.SOURCES else None


def _likely(weights: StateDict, architecture: str) -> str:
    """The kind of network that the weights look like, as a sentence to append to an error."""
    names = fitting_names(weights)
    if architecture in names:
        return ""
    if names:
        return f" By their names and shapes they are those of {' or '.join(names[:3])}."
    kind = looks_like(weights) if architecture.partition(":")[0] in zoo.SOURCES else None
    return f" They look like {kind}." if kind else ""
