"""Finds the network of torchvision or timm that a checkpoint belongs to."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..errors import NetworkError
from . import index, zoo
from .fit import Built, Fit, fit, head_names
from .statistics import Statistics, examine, has_statistics
from .suspects import looks_like
from .weights import MISFIT, name_variants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..checkpoints.model import StateDict

_NEAREST = 3
_OWN = "name the network as FILE.py:FACTORY"


def identify(
    weights: StateDict, kwargs: Mapping[str, Any], hint: str | None, images: Callable[[], torch.Tensor] | None = None
) -> Built:
    """Finds the network, and loads the weights into it.

    Args:
        weights: The checkpoint.
        kwargs: For the network's factory.
        hint: A name stored beside the weights; it decides between networks that fit.
        images: Returns pictures as the network gets them; on these, batch-norm statistics decide between networks
            that fit.

    Raises:
        NetworkError: None fits, or several fit that would answer differently.
    """
    variant, notes, candidates = _candidates(weights)
    named = [] if candidates else [one for one in _hinted(hint) if _installed(*one)]
    if not candidates and not named:
        raise NetworkError(_unknown(weights))
    fits, misfits = _fits(candidates or named, variant, kwargs)
    if not fits:
        architecture, misfit = misfits[0]
        start = "The checkpoint names" if named else "The weights look like those of"
        raise NetworkError(f"{start} {architecture}, but: {_bare(misfit)}.")
    hinted = [one for one in fits if (one.source, one.name) in _hinted(hint)]
    if hint and not hinted:
        notes += (f"The checkpoint names the network {hint!r}, which does not fit or is not known.",)
    built = _choose(hinted or fits, images, other_named=bool(hint) and not hinted)
    return replace(built, notes=(*notes, *built.notes), guessed=not hinted)


def fitting_names(weights: StateDict) -> list[str]:
    """Names the networks that have the body of a checkpoint, by the index alone."""
    return [f"{source}:{name}" for source, name in _candidates(weights)[2]]


def _candidates(weights: StateDict) -> tuple[StateDict, tuple[str, ...], list[tuple[str, str]]]:
    for variant, notes in name_variants(weights):
        if found := index.matching(variant):
            return variant, notes, [(entry.source, entry.name) for entry in found]
    return weights, (), []


def _fits(
    candidates: list[tuple[str, str]], weights: StateDict, kwargs: Mapping[str, Any]
) -> tuple[list[Fit], list[tuple[str, NetworkError]]]:
    fits, misfits = [], []
    for source, name in candidates:
        try:
            fits.append(fit(source, name, weights, kwargs))
        except NetworkError as error:
            misfits.append((f"{source}:{name}", error))
    return fits, misfits


def _choose(fits: list[Fit], images: Callable[[], torch.Tensor] | None, *, other_named: bool) -> Built:
    """Picks one of the networks that fit; `other_named`: the checkpoint names none of them."""
    # The shortest of several names for the same computation is the plainest: vit_..., not deit_....
    fits = sorted(fits, key=lambda one: (one.source != zoo.TORCHVISION, len(one.name), one.name))
    first, *rest = [one.load() for one in fits]
    others = [one for one in rest if not _answer_alike(first, one, fits[0].side)]
    if not others:
        return first
    networks = [first, *others]
    found = _examined(networks, images) if images is not None else []
    for best, own in zip(networks, found, strict=False):
        if all(own is other or own.fits_better(other) for other in found):
            return replace(best, beaten=tuple(one.architecture for one in networks if one is not best))
    names = tuple(one.architecture for one in others)
    if not any(name.startswith(zoo.TORCHVISION) for name in names) and fits[0].source == zoo.TORCHVISION:
        nearer = (one.architecture for one, own in zip(others, found[1:], strict=False) if own.is_nearer(found[0]))
        return replace(first, rivals=names if other_named else tuple(nearer))
    raise NetworkError(
        f"These weights fit {len(others) + 1} networks that answer differently: {first.architecture}, "
        f"{', '.join(names)}. Say which one they were trained in, for example architecture = "
        f'"{first.architecture}".'
    )


def _examined(networks: list[Built], images: Callable[[], torch.Tensor]) -> list[Statistics]:
    """How the batch-norm statistics fit each network; empty if they cannot be compared."""
    if all(has_statistics(one.network) for one in networks):
        with contextlib.suppress(Exception):  # networks of a fixed size fail in their own ways on others
            return [examine(one.network, images()) for one in networks]
    return []


def _answer_alike(one: Built, other: Built, own_side: int) -> bool:
    for side in dict.fromkeys((128, own_side)):
        photos = _photos(side)
        try:
            with torch.inference_mode():
                expected, answer = one.network(photos), other.network(photos)
        except Exception:  # noqa: BLE001, S112 - networks of a fixed size fail in their own ways on others
            continue
        if not isinstance(expected, torch.Tensor) or not isinstance(answer, torch.Tensor):
            return False
        # Small compared with the differences between photos; rounding errors of float32, with the logits.
        spread = float((expected - expected.mean(0)).abs().max())
        tolerance = 1e-4 * spread + 1e-6 * float(expected.abs().max())
        return expected.shape == answer.shape and float((expected - answer).abs().max()) <= tolerance
    return False


def _photos(side: int) -> torch.Tensor:
    """Three normalised pictures with structure at several scales, deterministic: float32 [3, 3, side, side]."""
    generator = torch.Generator().manual_seed(0)
    photos = torch.zeros(3, 3, side, side)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = torch.randn(3, 3, cells, cells, generator=generator)
        photos += torch.nn.functional.interpolate(noise, (side, side), mode="bilinear")
    return photos / photos.std()


def _hinted(hint: str | None) -> list[tuple[str, str]]:
    """The networks that a name such as `resnet50`, `timm/resnet50.a1_in1k` or `torchvision:resnet50` may mean."""
    if not hint:
        return []
    spelled = hint.lower().replace("torchvision.models.", "torchvision:").replace("/", ":")
    source, _, name = spelled.rpartition(":")
    plain = name.replace("-", "_").partition(".")[0]
    return [(known, plain) for known in zoo.SOURCES if source in ("", known)]


def _installed(source: str, name: str) -> bool:
    try:
        return zoo.is_known(source, name)
    except NetworkError:
        return False


def _unknown(weights: StateDict) -> str:
    nobody = "No image classifier of torchvision or timm has these weights"
    if wrapped := _wrapped(weights):
        return f"{nobody} as a whole. {wrapped}"
    if kind := looks_like(weights):
        return f"{nobody}. They look like {kind}."
    nearest, variant = max(
        ((index.nearest(variant, _NEAREST), variant) for variant, _ in name_variants(weights)),
        key=lambda pair: pair[0][0][0] if pair[0] else 0,
    )
    if not nearest:
        first = ", ".join(list(weights)[:3])
        return f"{nobody} ({first}, ...), nor is one near; if it is a network of your own, {_OWN}."
    described = "; ".join(_described(entry, variant) for _, entry in nearest)
    return f"{nobody}; if it is a network of your own, {_OWN}. The nearest: {described}."


def _wrapped(weights: StateDict) -> str | None:
    """Describes a known body inside a class of the user's own, which has other layers, too."""
    for variant, _ in name_variants(weights):
        for top in dict.fromkeys(name.partition(".")[0] for name in variant):
            part = {name[len(top) + 1 :]: tensor for name, tensor in variant.items() if name.startswith(f"{top}.")}
            beside = [name for name in variant if not name.startswith(f"{top}.")]
            found = index.matching(part) if beside and part else []
            if found:
                listed = ", ".join(beside[:3]) + (", ..." if len(beside) > 3 else "")
                if head_names(part):
                    return f"Below '{top}.' is {found[0].architecture}; save only that part, without {listed}."
                return (
                    f"Below '{top}.' is the body of {found[0].architecture}, and beside it {listed}: {_OWN}, with the "
                    "class that joins the two."
                )
    return None


def _described(entry: index.Entry, weights: StateDict) -> str:
    try:
        fit(entry.source, entry.name, weights, {})
    except NetworkError as error:
        # The sentence says already that they differ.
        return f"{entry.architecture} ({_bare(error).removeprefix(MISFIT)})"
    return entry.architecture


def _bare(error: Exception) -> str:
    return str(error).rstrip(".")
