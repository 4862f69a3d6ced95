"""Labels, normalisation and the like, from any dict that a training script wrote."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .model import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_NAME_TO_INDEX = ("class_to_idx", "class_to_index", "label_to_idx", "label2id")
_INDEX_TO_NAME = ("idx_to_class", "index_to_class", "idx_to_label", "id2label")
_NAMES = ("classes", "class_names", "labels", "label_names", "class_labels", "categories", "names")
# Where training scripts keep them below the top.
_INNER = (
    *("meta", "metadata", "config", "cfg", "args", "opt", "hparams", "hyper_parameters", "hyperparameters"),
    *("model_args", "model_config", "model_kwargs", "data", "dataset", "data_config", "pretrained_cfg"),
    *("preprocessing", "preprocess", "preprocessor", "transform", "transforms", "normalization", "normalize"),
)
# A contradiction about these is an error, not a note: the wrong one would swap every answer.
_CONTRADICTIONS = ("labels", "positive", "positive_index")
_POSITION = re.compile(r"\s*\d{1,4}\s*")
_MAX_DEPTH = 3
_MAX_LABELS = 10_000
_MAX_SIDE = 4096
_SHOWN = 6


class _GarbageError(ValueError):
    """An unusable value under a known key; the message says what is wrong with it."""


def read_facts(values: dict[str, Any], where: str) -> tuple[Facts, tuple[str, ...]]:
    """Collects the facts of one document; unusable values are left out with a note.

    Args:
        values: The document: a checkpoint's other entries, or a JSON file.
        where: Its name, for messages.

    Raises:
        CheckpointError: It holds two orders of labels, or two positive classes.
    """
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    notes: list[str] = []
    for place, mapping in _mappings(values, "", _MAX_DEPTH):
        for fact, keys, parse in _PARSERS:
            for key in keys:
                if mapping.get(key) is None:
                    continue
                source = f"{where}'s '{place}{key}'"
                try:
                    value = parse(mapping[key])
                except _GarbageError as garbage:
                    notes.append(f"Ignored {source}: {garbage}.")
                    continue
                if value is None:
                    continue
                if fact not in found:
                    found[fact], sources[fact] = value, source
                elif not agree(fact, found[fact], value):
                    if fact in _CONTRADICTIONS:
                        raise CheckpointError(_contradiction(fact, found[fact], sources[fact], value, source))
                    notes.append(f"Ignored {source}: {sources[fact]} says {shown(found[fact])}.")
    mean, std = found.get("mean"), found.get("std")
    if mean and std and max(*mean, *std) > 1:
        found["mean"], found["std"] = (tuple(part / 255 for part in values) for values in (mean, std))
        notes.append(f"The mean and std in {where} are on a scale of 0 to 255 and were divided by 255.")
    elif max(mean or (0,)) > 1 or max(std or (0,)) > 1:
        notes.append(f"Ignored the mean or std in {where}: it is on a scale of 0 to 255, and the other is missing.")
        found = {fact: value for fact, value in found.items() if fact not in ("mean", "std")}
    return Facts(**found, sources={fact: sources[fact] for fact in found}), tuple(notes)


def merge(documents: Sequence[Facts]) -> Facts:
    """Combines several documents; the first that states a fact is its source.

    Raises:
        CheckpointError: Two of them contradict each other.
    """
    merged = Facts()
    for facts in documents:
        for fact, value in known(facts).items():
            before = getattr(merged, fact)
            if before is None:
                source = facts.sources.get(fact, "the checkpoint")
                merged = replace(merged, **{fact: value}, sources=merged.sources | {fact: source})
            elif not agree(fact, before, value):
                raise CheckpointError(
                    _contradiction(fact, before, merged.sources[fact], value, facts.sources.get(fact, "the checkpoint"))
                )
    return _with_positive_named(merged)


def _with_positive_named(facts: Facts) -> Facts:
    """Names the positive one of two classes, in the spelling of the labels."""
    labels, index = facts.labels, facts.positive_index
    if labels is None:
        return facts
    if len(labels) != 2:
        return replace(facts, positive=None, positive_index=None)
    named = next((label for label in labels if facts.positive and agree("positive", label, facts.positive)), None)
    for fact, wrong in (("positive", facts.positive and not named), ("positive_index", index not in (None, 0, 1))):
        if wrong:
            raise CheckpointError(
                f"contradicts itself: {facts.sources[fact]} says that the positive class is {getattr(facts, fact)}, "
                f"and {facts.sources['labels']} that the classes are {shown(labels)}; correct the one that is wrong."
            )
    if index is None:
        return replace(facts, positive=named)
    source = facts.sources["positive_index"]
    if named not in (None, labels[index]):
        raise CheckpointError(_contradiction("positive", named, facts.sources["positive"], labels[index], source))
    return replace(facts, positive=labels[index], positive_index=None, sources={"positive": source} | facts.sources)


def known(facts: Facts) -> dict[str, Any]:
    """The facts that are not None, by name."""
    named = {field.name: getattr(facts, field.name) for field in fields(facts) if field.name != "sources"}
    return {fact: value for fact, value in named.items() if value is not None}


def agree(fact: str, one: Any, other: Any) -> bool:
    """Whether two values of a fact mean the same."""
    if fact == "labels":
        return [label.casefold().strip() for label in one] == [label.casefold().strip() for label in other]
    if fact == "positive":
        return bool(one.casefold() == other.casefold())
    if fact in ("mean", "std"):
        return all(abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True))
    if fact in ("arch", "resize_mode"):
        # `ResNet-18`, `resnet18` and timm's `resnet18.a1_in1k` are the same.
        a, b = (re.sub(r"[^a-z0-9]", "", text.lower()) for text in (one, other))
        return a in b or b in a
    return bool(one == other)


def shown(value: Any) -> str:
    """A fact's value, for people."""
    if not isinstance(value, tuple):
        return str(value)
    parts = [f"{part:.4g}" if isinstance(part, float) else str(part) for part in value[:_SHOWN]]
    return ", ".join(parts) + (f" and {len(value) - _SHOWN} more" if len(value) > _SHOWN else "")


def _contradiction(fact: str, one: Any, of_one: str, other: Any, of_other: str) -> str:
    return (
        f"contradicts itself about {fact.replace('_', ' ')}: {of_one} says {shown(one)}, {of_other} says "
        f"{shown(other)}; correct or remove the one that is wrong."
    )


def _mappings(values: dict[str, Any], place: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    yield place, values
    for key in _INNER if depth else ():
        if isinstance(values.get(key), dict):
            yield from _mappings(values[key], f"{place}{key}.", depth - 1)


def _labels(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, (int, float, str)):
        return None  # a number of classes, or a path
    if isinstance(value, dict):
        by_name = all(type(index) is int for index in value.values())
        pairs = [(index, name) if by_name else (name, index) for name, index in value.items()]
        names = {_index(index): name for index, name in pairs}
        if sorted(names) != list(range(len(pairs))):
            raise _GarbageError(f"its indices are not 0 to {len(pairs) - 1}")
        value = [names[index] for index in range(len(names))]
    if not isinstance(value, list) or not 2 <= len(value) <= _MAX_LABELS:
        raise _GarbageError("it is not a list of two or more labels")
    if not all(isinstance(label, str) and label.strip() and label.strip().isprintable() for label in value):
        raise _GarbageError("its labels are not all texts of one line")
    labels = tuple(label.strip() for label in value)
    if len({label.casefold() for label in labels}) < len(labels):
        raise _GarbageError("it holds a label twice")
    if all(re.fullmatch(r"(?i)label_\d+|\d+", label) for label in labels):
        raise _GarbageError("its labels are placeholders")
    return labels


def _index(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and re.fullmatch(r"\d{1,5}", value):
        return int(value)
    raise _GarbageError("its indices are not whole numbers")


def _arch(value: Any) -> str | None:
    if not isinstance(value, str):
        return None  # the key is also used for the network itself
    if not re.fullmatch(r"[A-Za-z][\w.:/\-]{1,99}", value):
        raise _GarbageError("it is not the name of a network")
    return value


def _image_size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")] if "height" in value else value.get("shortest_edge")
    if not isinstance(value, list):
        value = [value]
    sides = [side for side in value if side != 3] if len(value) == 3 else value
    if len(sides) not in (1, 2) or not all(type(side) in (int, float) and 1 <= side <= _MAX_SIDE for side in sides):
        raise _GarbageError("it is not a size in pixels")
    # PyTorch puts the height first, we the width.
    return int(sides[-1]), int(sides[0])


def _three(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 3:
        raise _GarbageError("it is not three numbers")
    if not all(type(part) in (int, float) and math.isfinite(part) and 0 <= part <= 255 for part in value):
        raise _GarbageError("it is not three numbers from 0 to 255")
    return tuple(float(part) for part in value)


def _std(value: Any) -> tuple[float, ...]:
    std = _three(value)
    if min(std) <= 0:
        raise _GarbageError("a standard deviation is zero")
    return std


def _resize_mode(value: Any) -> str | None:
    mode = str(value).rpartition(".")[2].lower()
    return mode if mode in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "area") else None


def _threshold(value: Any) -> float | None:
    if isinstance(value, (list, dict)):
        return None  # one for each class
    if type(value) not in (int, float) or not 0 < value < 1:
        raise _GarbageError("it is not between 0 and 1")
    return float(value)


def _positive(value: Any) -> str | None:
    if not isinstance(value, str) or _POSITION.fullmatch(value):
        return None
    if not value.strip() or not value.strip().isprintable():
        raise _GarbageError("it is not a label")
    return value.strip()


def _positive_index(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if _POSITION.fullmatch(value) else None
    if type(value) is not int or value < 0:
        raise _GarbageError("it is neither a label nor the position of one")
    return value


_POSITIVE = (
    *(f"positive_{what}" for what in ("class", "label", "idx", "index", "class_idx", "class_index")),
    *("pos_label", "pos_class", "pos_idx", "pos_index"),
)
_PARSERS: tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...] = (
    ("labels", (*_NAME_TO_INDEX, *_INDEX_TO_NAME, *_NAMES), _labels),
    ("arch", ("arch", "architecture", "model_name", "model_arch", "backbone", "encoder_name", "model", "net"), _arch),
    ("image_size", ("image_size", "img_size", "input_size", "imgsz", "crop_size", "size"), _image_size),
    ("mean", ("mean", "image_mean", "norm_mean", "normalize_mean", "img_mean"), _three),
    ("std", ("std", "image_std", "norm_std", "normalize_std", "img_std"), _std),
    ("resize_mode", ("resize_mode", "interpolation"), _resize_mode),
    ("threshold", ("threshold", "best_threshold", "decision_threshold", "optimal_threshold"), _threshold),
    ("positive", _POSITIVE, _positive),
    ("positive_index", _POSITIVE, _positive_index),
)
