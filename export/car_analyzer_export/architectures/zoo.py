"""Builds the classifiers of torchvision and timm without weights and without downloads."""

from __future__ import annotations

import difflib
import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..errors import NetworkError, reason
from ..torchvision_operators import with_torchvision_operators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TORCHVISION = "torchvision"
TIMM = "timm"
SOURCES = (TORCHVISION, TIMM)
INSTALL = "pip install 'car-analyzer[zoo]'"

# Top-level names of a classifier's last layers, across both libraries.
TRAINING_HEADS = frozenset({"aux1", "aux2", "AuxLogits"})
HEADS = TRAINING_HEADS | {
    *("aux_head", "classif", "classifier", "fc", "head", "head_dist", "heads", "heads_dist", "last_linear"),
}

# These two have heads for training only, and may normalise their input once more.
INCEPTIONS = frozenset({"googlenet", "inception_v3"})

# Arguments that would download weights, or load others.
_FETCHING = frozenset(
    {"cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "weights"}
)


def is_known(source: str, name: str) -> bool:
    """Whether the installed library has an image classifier of that name; timm's may carry a tag, as in `a.b`.

    Raises:
        NetworkError: The library is not installed, or cannot be imported.
    """
    library = _library(source)
    if source == TORCHVISION:
        return name in library.list_models(module=library)
    return name.replace(".", "").isidentifier() and bool(library.is_model(name))


def create(source: str, name: str, kwargs: Mapping[str, Any]) -> torch.nn.Module:
    """Builds a network without weights.

    Args:
        source: `torchvision` or `timm`.
        name: The network's name there.
        kwargs: For its factory.

    Returns:
        The network, on the CPU, with most parameters on the meta device; buffers hold their values.

    Raises:
        NetworkError: The library is not installed, has no such network, or cannot build it so.
    """
    library = _library(source)
    if not is_known(source, name):
        raise NetworkError(_unknown(source, name))
    fetching = sorted(key for key in _FETCHING & kwargs.keys() if kwargs[key])
    if fetching:
        raise NetworkError(f"'{fetching[0]}' would load other weights than the checkpoint's; leave it out.")
    arguments = {key: value for key, value in kwargs.items() if key not in _FETCHING}
    if source == TIMM:
        arguments["pretrained"] = False
    else:
        arguments["weights"] = None
        if name in INCEPTIONS:
            # Initial weights take seconds, and are overwritten. The other two: see `fit`.
            arguments = {"init_weights": False, "aux_logits": False, "transform_input": True} | arguments
    make: Callable[..., torch.nn.Module] = library.create_model if source == TIMM else library.get_model
    try:
        return _without_weights(lambda: make(name, **arguments))
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise NetworkError(
            f"{source}:{name} cannot be built with ({given}): {type(error).__name__}: {reason(error)}"
        ) from error


def side(source: str, network: torch.nn.Module) -> int:
    """Height and width of the photos that a network is made for."""
    if source == TORCHVISION:
        size = getattr(network, "image_size", 224)
        return size if isinstance(size, int) else 224
    grid = getattr(getattr(network, "patch_embed", None), "img_size", None)
    return int((grid or _timm_config(network).get("input_size", (3, 224, 224)))[-1])


def normalisation(source: str, network: torch.nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that the library's own weights were trained with; None where the network does not say."""
    config = _timm_config(network) if source == TIMM else {}
    mean, std = config.get("mean"), config.get("std")
    return (tuple(mean), tuple(std)) if mean and std else None


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Keeps modules from initialising parameters that are loaded later, which costs a second and twice the memory."""

    def on_meta(
        _module: torch.nn.Module, _name: str, parameter: torch.nn.Parameter | None
    ) -> torch.nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return parameter
        return torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(on_meta)  # type: ignore[arg-type] # it may return one
    try:
        yield
    finally:
        hook.remove()


def _without_weights(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    try:
        with parameters_on_meta():
            network = make()
    except Exception:  # noqa: BLE001 - some networks compute with their parameters during construction
        return make()
    return make() if any(buffer.is_meta for buffer in network.buffers()) else network


def import_library(module: str) -> Any:
    """Imports a module of torchvision or timm."""
    return with_torchvision_operators(lambda: importlib.import_module(module))


def _library(source: str) -> Any:
    try:
        return import_library("torchvision.models" if source == TORCHVISION else source)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in SOURCES:
            raise NetworkError(f"This needs {missing}, which is not installed: {INSTALL}") from error
        raise NetworkError(f"{source} cannot be imported: {type(error).__name__}: {reason(error)}") from error
    except Exception as error:
        raise NetworkError(
            f"{source} cannot be imported beside PyTorch {torch.__version__}: {type(error).__name__}: {reason(error)}"
        ) from error


def _timm_config(network: torch.nn.Module) -> dict[str, Any]:
    config = getattr(network, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}


def _unknown(source: str, name: str) -> str:
    library = _library(source)
    if source == TORCHVISION and name.startswith("quantized_"):
        return f"{source}:{name} is quantised, which is not supported; train and save the float network."
    if source == TORCHVISION and name in library.list_models():
        return f"{source}:{name} is not an image classifier."
    names = library.list_models(module=library) if source == TORCHVISION else library.list_models()
    plain = name.lower().replace("-", "_")
    near = [plain] if plain in names else difflib.get_close_matches(plain, names, n=3, cutoff=0.5)
    hint = f"the nearest names: {', '.join(near)}" if near else f"{len(names)} others, no name is near"
    return f"{source} has no image classifier '{name}'; {hint}."
