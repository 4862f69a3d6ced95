"""From a spec to a plan: reads the checkpoints, builds the networks, and decides what the spec leaves open."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .architectures import Built, build
from .checkpoints import read_checkpoint, reconcile
from .errors import ExportError, SpecError
from .evidence import PICTURES, describe, describe_input, look_at_statistics
from .graph import run_network
from .pictures import comparison_pixels
from .plan import HeadPlan, NetworkPlan, Plan, normalised
from .preprocess.view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from .checkpoints import Checkpoint, Effective
    from .spec import Head, Network, Spec

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DEFAULT_SIZE = (224, 224)


def plan_export(
    spec: Spec, *, trust_pickle: bool = False, progress: Callable[[str], None] = lambda _step: None
) -> Plan:
    """Decides everything about an export, and makes sure that the networks run.

    Args:
        spec: What the user asks for.
        trust_pickle: Accept checkpoints that run code when they are loaded.
        progress: Called with a few words before each network.

    Raises:
        ExportError: A checkpoint, a network or the spec is at fault; the message names the network or head.
    """
    if spec.photos is not None and not spec.photos.is_dir():
        raise SpecError(f"The folder of photos {spec.photos} does not exist.")
    if spec.precision == "int8" and spec.photos is None:
        raise SpecError("int8 is calibrated on photos like those to come; name a folder of some, as `photos`.")
    if spec.accelerator == "tensorrt" and spec.target != "gpu":
        raise SpecError("TensorRT runs on GPUs only; say target gpu, too.")
    networks = []
    for name, network in spec.networks.items():
        progress(f"{name}: loading {network.weights.name}")
        heads = {head_name: head for head_name, head in spec.heads.items() if head.network == name}
        try:
            networks.append(_plan_network(name, network, heads, spec, trust_pickle=trust_pickle))
        except ExportError as error:
            raise type(error)(f"{'Head' if name in heads else 'Network'} '{name}': {error}") from error
    return Plan(
        tuple(networks),
        tuple(spec.heads),
        spec.limits.for_gpu(spec.preprocess) if spec.target == "gpu" else spec.limits,
        spec.photos,
        spec.precision,
        spec.target,
        spec.accelerator,
        spec.engine_cache,
        spec.preprocess,
    )


def _plan_network(
    name: str, network: Network, heads: dict[str, Head], spec: Spec, *, trust_pickle: bool
) -> NetworkPlan:
    checkpoint = read_checkpoint(network.weights, trust_pickle=trust_pickle, sha256=network.sha256)
    notes = list(checkpoint.notes)
    classes = network.classes or (checkpoint.facts.labels if _are_combined(checkpoint, heads) else None)
    if classes:
        # They name the network's classes, not any head's labels.
        checkpoint = replace(checkpoint, facts=replace(checkpoint.facts, labels=None))
    effective = {
        head_name: reconcile(
            head_name,
            checkpoint.facts,
            labels=head.labels or (tuple(head.classes) if head.classes else None),
            mean=network.mean,
            std=network.std,
            image_size=network.photo_size or spec.photo_size,
            arch=None if network.architecture == "auto" else network.architecture,
        )
        for head_name, head in heads.items()
    }
    for found in effective.values():
        notes += [note for note in found.notes if note not in notes]
    shared = next(iter(effective.values()))
    width, height = shared.image_size or _DEFAULT_SIZE
    view = View(
        width,
        height,
        network.shortest_edge,
        _interpolation(network, checkpoint, notes),
        network.antialias,
        network.exif_rotation,
        network.decoding,
    )
    mean, std, bgr = shared.mean or _IMAGENET_MEAN, shared.std or _IMAGENET_STD, network.channels == "BGR"
    pixels = functools.cache(lambda: comparison_pixels(view, PICTURES, spec.photos, spec.limits))
    built = _build(network, checkpoint, lambda: normalised(pixels(), mean, std, bgr=bgr))
    notes += built.notes
    draft = NetworkPlan(
        name=name,
        network=built.network.float().eval(),
        mean=mean,
        std=std,
        bgr=bgr,
        view=view,
        heads=(),
        weights=network.weights,
        architecture=built.architecture,
    )
    outputs = run_network(draft, 1)
    statistics = look_at_statistics(draft, pixels)
    owner = f"{'Head' if name in heads else 'Network'} '{name}'"
    of_input = describe_input(owner, draft, statistics, pixels, photos=spec.photos is not None)
    notes += filter(None, (describe(owner, built, statistics), of_input))
    planned = tuple(
        _plan_head(head_name, head, effective[head_name], classes, outputs, checkpoint.facts.threshold, notes)
        for head_name, head in heads.items()
    )
    return replace(draft, heads=planned, statistics=statistics, notes=tuple(notes))


def _are_combined(checkpoint: Checkpoint, heads: dict[str, Head]) -> bool:
    """Several heads that read the same output can only share its classes among them."""
    return any(head.classes for head in heads.values()) or (
        checkpoint.facts.labels is not None and sum(head.output is None for head in heads.values()) > 1
    )


def _interpolation(network: Network, checkpoint: Checkpoint, notes: list[str]) -> str:
    known = checkpoint.facts.resize_mode
    if known is None or known == network.interpolation:
        return network.interpolation
    source = checkpoint.facts.sources["resize_mode"]
    if "interpolation" in network.model_fields_set:
        raise SpecError(
            f"the spec says interpolation {network.interpolation}, but {source} says {known}; correct the one that is "
            "wrong."
        )
    if known not in ("bilinear", "bicubic", "nearest"):
        notes.append(f"Warning: {source} says {known}, which is not offered; {network.interpolation} is used.")
        return network.interpolation
    notes.append(f"The interpolation {known} is from {source}.")
    return known


def _build(network: Network, checkpoint: Checkpoint, images: Callable[[], torch.Tensor]) -> Built:
    if checkpoint.module is not None:
        return Built(checkpoint.module, checkpoint.container)
    assert checkpoint.weights is not None  # noqa: S101 - a checkpoint has one or the other
    return build(network.architecture, network.kwargs, checkpoint.weights, hint=checkpoint.facts.arch, images=images)


def _plan_head(
    name: str,
    head: Head,
    effective: Effective,
    classes: tuple[str, ...] | None,
    outputs: object,
    known_threshold: float | None,
    notes: list[str],
) -> HeadPlan:
    labels = effective.labels
    groups = _groups(name, labels, head, classes) if classes else None
    activation = head.activation
    if activation is None:
        activation = "sigmoid" if groups is None and len(labels) == 2 and _is_one_logit(outputs, head) else "softmax"
        if activation == "sigmoid":
            notes.append(f"Head '{name}': the network gives one logit; its sigmoid is taken as that of '{labels[1]}'.")
    if len(labels) < 2 and activation != "multilabel":
        raise SpecError(f"head '{name}' has only the label '{labels[0]}'; at least two are needed.")
    if activation == "sigmoid" and head.positive == labels[0]:
        labels = (labels[1], labels[0])
    if len(labels) != 2 and activation != "multilabel" and (head.threshold or head.unsure or head.positive):
        raise SpecError(f"head '{name}' has {len(labels)} labels; threshold, unsure and positive are for two.")
    threshold = head.threshold
    if threshold is None and known_threshold is not None and len(labels) == 2:
        threshold = known_threshold
        notes.append(f"Head '{name}': the threshold {threshold} is from the checkpoint.")
    return HeadPlan(
        name=name,
        labels=labels,
        activation=activation,
        positive=head.positive if head.positive and head.positive != labels[-1] else None,
        threshold=threshold,
        unsure=head.unsure,
        output=head.output,
        groups=groups,
    )


def _is_one_logit(outputs: object, head: Head) -> bool:
    try:
        found = outputs if head.output is None else outputs[head.output]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return False  # `check_network` says so with more words
    return isinstance(found, torch.Tensor) and found.numel() == 1


def _groups(name: str, labels: tuple[str, ...], head: Head, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """For each label, the positions of the network's classes that have it."""
    if head.classes:
        members = {label: set(head.classes[label]) for label in labels}
        if unknown := set().union(*members.values()) - set(classes):
            raise SpecError(f"head '{name}' counts on the class '{min(unknown)}'; the network has {list(classes)}.")
    else:
        members = {label: {one for one in classes if label.casefold() in _words(one)} for label in labels}
    for one in classes:
        owners = [label for label in labels if one in members[label]]
        if len(owners) != 1:
            raise SpecError(
                f"head '{name}': the network's class '{one}' belongs to {owners or 'none'} of the labels "
                f'{list(labels)}; say which has which, as classes = {{ {labels[0]} = ["..."], {labels[1]} = ["..."] }}.'
            )
    return tuple(tuple(position for position, one in enumerate(classes) if one in members[label]) for label in labels)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
