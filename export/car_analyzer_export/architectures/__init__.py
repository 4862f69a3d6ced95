"""Which network a checkpoint belongs to, built and loaded.

    auto                        found by the names and shapes of the weights
    torchvision:resnet18        an image classifier of torchvision
    timm:efficientnet_b0        one of timm
    path/to/file.py:factory     made by a function or class in a file
    package.module:factory      or in an installed module

Nothing is downloaded, and no code from a checkpoint runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError
from . import zoo
from .auto import fitting_names, identify
from .factory import call_factory
from .fit import fit
from .suspects import looks_like
from .weights import Misfit, load_weights, match_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from ..checkpoints.model import StateDict
    from .fit import Fit

__all__ = ["AUTO", "Built", "build"]

AUTO = "auto"


@dataclass(frozen=True)
class Built:
    """A network with its weights.

    Attributes:
        network: On the CPU; float32, where it comes from torchvision or timm.
        architecture: The name that builds it again, such as `torchvision:resnet18`.
        notes: What was changed on the way, and what to heed, in sentences for the user.
        classes: How many logits it gives, where the weights tell.
        guessed: Nobody names the architecture; it has the names and shapes of the weights.
        assumed: Layers of a replaced head that have no weights, each in a few words.
        rivals: Other networks that have these names and shapes, answer differently, and may be meant.
        beaten: Likewise, but the checkpoint's batch-norm statistics fit them worse.
    """

    network: torch.nn.Module
    architecture: str
    notes: tuple[str, ...] = ()
    classes: int | None = None
    guessed: bool = False
    assumed: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    beaten: tuple[str, ...] = ()


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
        weights: The checkpoint. A prefix such as `module.` goes if the network's names lack it.
        hint: For `auto`, a name stored beside the weights; it decides between networks that fit.
        images: For `auto`, gives natural pictures as the network gets them, float32 [batch, 3, height, width]; on
            them, batch-norm statistics decide between networks that fit.

    Raises:
        NetworkError: There is no such network, or the weights are another's.
    """
    if architecture == AUTO:
        chosen = identify(weights, kwargs, hint, images)
        found = _built(chosen.fit)
        return replace(found, guessed=not chosen.named, rivals=chosen.rivals, beaten=chosen.beaten)
    source, _, name = architecture.partition(":")
    try:
        if source in zoo.SOURCES and name:
            fitting = fit(source, name, weights, kwargs)
            load_weights(fitting.network, fitting.weights)
            return _built(fitting)
        network = call_factory(architecture, kwargs)
        renamed, notes = match_names(weights, network.state_dict().keys())
        load_weights(network, renamed)
        return Built(network, architecture, notes)
    except Misfit as error:
        raise NetworkError(f"{architecture}: {error}.{_likely(weights, architecture)}") from error


def _built(found: Fit) -> Built:
    return Built(found.network.eval(), found.architecture, found.notes, found.classes, assumed=found.assumed)


def _likely(weights: StateDict, architecture: str) -> str:
    """What the weights seem to be instead, as a sentence behind an error."""
    names = fitting_names(weights)
    if architecture in names:
        return ""
    if names:
        return f" By their names and shapes they are those of {' or '.join(names[:3])}."
    kind = looks_like(weights) if architecture.partition(":")[0] in zoo.SOURCES else None
    return f" They look like {kind}." if kind else ""
