"""Plans an export: reads the checkpoints, builds the networks, and decides what the spec leaves open."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..architectures import Built, build, script_of
from ..checkpoints import read_checkpoint
from ..errors import ExportError, NetworkError, SpecError, reason
from ..onnx_model.graph import check_network
from ..photo_folder import PhotoFolder
from ..pictures import comparison_pixels
from ..preprocess.view import View
from ..spec import HeadPlan, NetworkPlan, Plan, normalised
from .evidence import PICTURES, batch_norm_statistics, describe, describe_input
from .outputs import Outputs
from .reconcile import NO_REGRESSION, reconcile, reconcile_labels
from .shortcuts import decide_shortcuts

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from ..checkpoints import Checkpoint, Facts
    from ..spec import Head, Network, Spec
    from .reconcile import Labels

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DEFAULT_SIZE = (224, 224)
_RECURRENT = frozenset({"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"})
_CONVOLUTIONS = frozenset({"Conv2d", "LazyConv2d"})


def plan_export(
    spec: Spec, *, trust_pickle: bool = False, progress: Callable[[str], None] = lambda _step: None
) -> Plan:
    """Decides everything about an export, and makes sure that the networks run.

    Args:
        spec: The user's settings.
        trust_pickle: Accept checkpoints that run code when they are loaded.
        progress: Called with a few words before each network.

    Raises:
        ExportError: A checkpoint, a network or the spec is wrong; the message names the network or head.

    Reading runs no code of an untrusted checkpoint. A crafted one can still crash this process or keep it busy, and
    networks are code anyway: `network_process` plans in a process of its own.
    """
    if spec.photos is not None and not spec.photos.is_dir():
        raise SpecError(f"The folder of photos {spec.photos} does not exist.")
    if spec.precision == "int8" and spec.photos is None:
        raise SpecError("int8 is calibrated on photos like those in production; name a folder of some, as `photos`.")
    if spec.accelerator == "tensorrt" and spec.target != "gpu":
        raise SpecError("TensorRT runs on GPUs only; set target gpu, too.")
    networks = []
    for name, network in spec.networks.items():
        progress(f"{name}: loading {network.weights.name}")
        heads = {head_name: head for head_name, head in spec.heads.items() if head.network == name}
        try:
            networks.append(_plan_network(name, network, heads, spec, trust_pickle=trust_pickle))
        except ExportError as error:
            place = f"{'Head' if name in heads else 'Network'} '{name}'"
            if str(error).startswith(place):
                raise
            raise type(error)(f"{place}: {error}") from error
    limits = spec.limits.completed(spec.target, spec.accelerator, spec.preprocess)
    left_open = {name: network.left_open for name, network in spec.networks.items()}
    if any(left_open.values()):
        progress("comparing faster ways to prepare photos")
    networks, skipped = decide_shortcuts(networks, left_open, spec.photos, limits)
    networks = _noting_turned_photos(networks, spec)
    return Plan(
        tuple(networks),
        tuple(spec.heads),
        limits,
        spec.photos,
        spec.precision,
        spec.target,
        spec.accelerator,
        spec.engine_cache,
        spec.preprocess,
        skipped,
        spec.description,
        spec.demo,
        spec.explain,
    )


def _noting_turned_photos(networks: list[NetworkPlan], spec: Spec) -> list[NetworkPlan]:
    """Adds a note to networks that ignore the EXIF orientation of some of the user's photos."""
    if spec.photos is None or all(network.view.exif_rotation for network in networks):
        return networks
    turned, photos = PhotoFolder(spec.photos, spec.limits).count_turned()
    if not turned:
        return networks
    note = (
        f"{turned} of {photos} photos in {spec.photos} are stored sideways or upside down, with an EXIF orientation. "
        "The network sees them as stored, as it does with torchvision's transforms. If it was trained on upright "
        "photos (ImageOps.exif_transpose), write exif_rotation = true in its table of the spec."
    )
    return [
        network if network.view.exif_rotation else replace(network, notes=(*network.notes, f"{network.title}: {note}"))
        for network in networks
    ]


def _plan_network(
    name: str, network: Network, heads: dict[str, Head], spec: Spec, *, trust_pickle: bool
) -> NetworkPlan:
    checkpoint = read_checkpoint(
        network.weights, trust_pickle=trust_pickle, sha256=network.sha256, script=script_of(network.architecture)
    )
    notes = list(checkpoint.notes)
    facts = checkpoint.facts
    classes = network.classes or (facts.labels if _are_combined(checkpoint, heads) else None)
    if classes:
        # They name the network's classes, not the labels of a head.
        facts = replace(facts, labels=None, positive=None, positive_index=None)
    owner = f"{'Head' if name in heads else 'Network'} '{name}'"
    settings = reconcile(
        owner,
        facts,
        mean=network.mean,
        std=network.std,
        image_size=network.photo_size or spec.photo_size,
        arch=None if network.architecture == "auto" else network.architecture,
    )
    notes += settings.notes
    width, height = settings.image_size or _DEFAULT_SIZE
    view = View(
        width,
        height,
        network.shortest_edge,
        _interpolation(network, checkpoint, notes),
        network.antialias,
        network.exif_rotation,
        "exact" if network.decoding == "exact" else "scaled",
    )
    if network.resampling != "exact" and view.has_fast:
        view = replace(view, resampling="fast")
    mean, std, bgr = settings.mean or _IMAGENET_MEAN, settings.std or _IMAGENET_STD, network.channels == "BGR"
    photos = PhotoFolder(spec.photos, spec.limits) if spec.photos is not None else None
    pixels = functools.cache(lambda: comparison_pixels(view, PICTURES, photos))
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
    outputs = _first_run(draft)
    statistics = batch_norm_statistics(draft, pixels)
    of_input = describe_input(owner, draft, statistics, pixels, photos=spec.photos is not None)
    notes += filter(None, (describe(owner, built, statistics), of_input))
    planned = tuple(_plan_head(head_name, head, facts, classes, outputs, notes) for head_name, head in heads.items())
    plan = replace(draft, heads=planned, batch_norm=statistics.to_dict(), notes=tuple(notes))
    check_network(plan)
    return plan


def _first_run(draft: NetworkPlan) -> Outputs:
    try:
        return Outputs(draft)
    except NetworkError as error:
        kinds = {getattr(module, "original_name", type(module).__name__) for module in draft.network.modules()}
        if (recurrent := kinds & _RECURRENT) and not kinds & _CONVOLUTIONS:
            why = reason(error.__cause__ or error)
            raise NetworkError(
                f"The network takes sequences, not photos: it is made of {' and '.join(sorted(recurrent))} layers "
                f"({why}). An exported network takes photos, float32 [batch, 3, height, width]."
            ) from error
        raise


def _are_combined(checkpoint: Checkpoint, heads: dict[str, Head]) -> bool:
    """Several heads that read the same output can only share its classes."""
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
        notes.append(f"Warning: {source} says {known}, which is not supported; {network.interpolation} is used.")
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
    facts: Facts,
    classes: tuple[str, ...] | None,
    outputs: Outputs,
    notes: list[str],
) -> HeadPlan:
    one_logit = head.activation == "sigmoid" or (
        head.activation is None and not classes and outputs.classes(head.output) == 1
    )
    said = head.labels or (tuple(head.classes) if head.classes else None)
    found = reconcile_labels(name, facts, said, one_logit=one_logit)
    notes += found.notes
    labels = found.order
    activation = head.activation or ("sigmoid" if one_logit and len(labels) == 2 else "softmax")
    if classes and activation != "softmax":
        raise SpecError(f"head '{name}' shares the network's classes, which exclude each other; remove its activation.")
    if len(labels) < 2 and activation != "multilabel":
        raise SpecError(f"Head '{name}' has only the label '{labels[0]}'; at least two are needed. {NO_REGRESSION}")
    if len(labels) > 2 and not classes and outputs.classes(head.output) == 1:
        raise SpecError(f"Head '{name}' has {len(labels)} labels, but its network gives one number. {NO_REGRESSION}")
    if len(labels) != 2 and activation != "multilabel" and (head.threshold or head.unsure or head.positive):
        raise SpecError(f"head '{name}' has {len(labels)} labels; threshold, unsure and positive are for two.")
    if head.positive and head.positive not in labels:
        raise SpecError(f"head '{name}' has the labels {list(labels)}, and positive '{head.positive}' is none of them.")
    threshold, positive = _threshold(name, head, facts, found, activation, notes)
    planned = HeadPlan(
        name=name,
        labels=labels,
        activation=activation,
        positive=positive if positive != labels[-1] else None,
        threshold=threshold,
        unsure=head.unsure,
        output=head.output,
        groups=_groups(name, labels, head, classes) if classes else None,
    )
    planned = replace(planned, probabilities=outputs.are_probabilities(planned, head.probabilities, notes))
    if activation == "sigmoid":
        what = "probability, read as" if planned.probabilities else "logit; its sigmoid is read as"
        notes.append(
            f"Head '{name}': the network gives one {what} that of '{labels[1]}' (by {found.source}). The score of a "
            "regression would be misread."
        )
    return planned


def _threshold(
    name: str, head: Head, facts: Facts, labels: Labels, activation: str, notes: list[str]
) -> tuple[float | None, str | None]:
    """The threshold, and the label that it applies to."""
    threshold, positive = head.threshold, head.positive or labels.positive
    from_checkpoint = threshold is None and facts.threshold is not None and len(labels.order) == 2
    if from_checkpoint:
        threshold = facts.threshold
        notes.append(f"Head '{name}': the threshold {threshold} is from the checkpoint.")
    if activation == "multilabel":
        return threshold, None
    source = facts.sources.get("positive") or facts.sources.get("positive_index")
    if from_checkpoint and labels.positive not in (None, positive):
        raise SpecError(
            f"the spec says positive {positive}, but {source} says that the checkpoint's threshold "
            f"{threshold} applies to {labels.positive}; give a threshold for {positive}, or correct the one that "
            "is wrong."
        )
    if (threshold or head.unsure) and head.positive is None and positive == labels.order[0]:
        notes.append(f"Head '{name}': the threshold applies to '{positive}' (by {source}).")
    return threshold, positive


def _groups(name: str, labels: tuple[str, ...], head: Head, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """For each label, the positions of its classes in the network."""
    if head.classes:
        members = {label: set(head.classes[label]) for label in labels}
        if unknown := set().union(*members.values()) - set(classes):
            raise SpecError(f"head '{name}' has the class '{min(unknown)}'; the network has {list(classes)}.")
    else:
        members = {label: {one for one in classes if label.casefold() in _words(one)} for label in labels}
    for one in classes:
        owners = [label for label in labels if one in members[label]]
        if len(owners) != 1:
            raise SpecError(
                f"head '{name}': the network's class '{one}' belongs to {owners or 'none'} of the labels "
                f'{list(labels)}; assign each, as classes = {{ {labels[0]} = ["..."], {labels[1]} = ["..."] }}.'
            )
    return tuple(tuple(position for position, one in enumerate(classes) if one in members[label]) for label in labels)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
