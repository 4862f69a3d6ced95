"""Combines what the spec and the checkpoint say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..checkpoints.facts import agree, shown
from ..errors import SpecError
from ..spec import WELL_KNOWN_LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..checkpoints.model import Facts

NO_REGRESSION = (
    "A regression output (a score) has no labels and cannot be served: a head needs one logit with two labels and a "
    "sigmoid, or as many logits as labels."
)
_FACTS = ("mean", "std", "image_size", "arch")


@dataclass(frozen=True)
class Effective:
    """The settings of a network; None where neither side says, so that the exporter's default applies.

    Attributes:
        mean: Of the normalisation.
        std: Of the normalisation.
        image_size: Width and height.
        arch: The network's name, or `FILE.py:FACTORY`.
        notes: For the user.
    """

    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    image_size: tuple[int, int] | None
    arch: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """The labels of a head.

    Attributes:
        order: In logit order; with one logit, its sigmoid is the probability of the second.
        source: Where the order is from.
        positive: The one that the checkpoint calls positive, in the spelling of `order`.
        notes: For the user.
    """

    order: tuple[str, ...]
    source: str
    positive: str | None
    notes: tuple[str, ...]


def reconcile(
    owner: str,
    facts: Facts,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: tuple[int, int] | None = None,
    arch: str | None = None,
) -> Effective:
    """Decides on a network's settings; where only one side says something, that counts.

    Args:
        owner: What to call the network, such as `Head 'condition'`.
        facts: What the checkpoint says.
        mean: What the spec says itself, without defaults; None where it says nothing. Likewise below.
        std: Of the normalisation.
        image_size: Width and height.
        arch: A network's name, or `FILE.py:FACTORY`.

    Raises:
        SpecError: They contradict each other.
    """
    notes: list[str] = []
    given: dict[str, Any] = {
        "mean": tuple(mean) if mean is not None else None,
        "std": tuple(std) if std is not None else None,
        "image_size": image_size,
        "arch": arch,
    }
    for fact in _FACTS:
        said, found = given[fact], getattr(facts, fact)
        # A factory can have any name.
        incomparable = fact == "arch" and ":" in str(said)
        if said is not None and found is not None and not incomparable and not agree(fact, said, found):
            raise _contradiction(owner, fact, shown(said), shown(found), facts.sources[fact])
        if said is None and found is not None:
            notes.append(f"{owner}: {fact.replace('_', ' ')} {shown(found)} is from {facts.sources[fact]}.")
    chosen = {fact: given[fact] if given[fact] is not None else getattr(facts, fact) for fact in _FACTS}
    return Effective(**chosen, notes=tuple(notes))


def reconcile_labels(head: str, facts: Facts, said: Sequence[str] | None = None, *, one_logit: bool = False) -> Labels:
    """Decides on a head's labels in the same way.

    Args:
        head: Its name.
        facts: What the checkpoint says; its labels are in the order of the classes in training.
        said: What the spec says, in logit order; None where it says nothing.
        one_logit: The network separates two classes by one logit. In training scripts it belongs to the second class,
            unless they say that the other one is positive.

    Raises:
        SpecError: They contradict each other, or neither says what the logits mean.
    """
    notes: list[str] = []
    found, positive = facts.labels, facts.positive
    source = facts.sources.get("labels", "")
    if one_logit and found and positive:
        found = (*(label for label in found if label != positive), positive)
        source += f" and {facts.sources['positive']}"
    if said is not None:
        order = tuple(said)
        if found is not None:
            _compare(head, order, found, source, notes)
    elif found is not None:
        _reject_swapped(head, found, source)
        notes.append(f"Head '{head}': the labels' order, {shown(found)}, is from {source}.")
        order = found
    elif head in WELL_KNOWN_LABELS:
        order = WELL_KNOWN_LABELS[head]
    else:
        raise SpecError(
            f"Head '{head}' has no labels, and its checkpoint names none; list them in the spec in the order of the "
            f'logits, as labels = ["...", "..."]. {NO_REGRESSION}'
        )
    named = order[found.index(positive)] if found and positive else _named(head, order, facts, one_logit, notes)
    if one_logit and named == order[0] and said is not None:
        raise SpecError(
            f"Head '{head}': the network gives one logit, whose sigmoid belongs to the second label, {order[1]} in the "
            f"spec, but {facts.sources['positive']} says {positive}; correct the one that is wrong."
        )
    if found is None and said is None:
        if one_logit and named:
            order, source = (*(label for label in order if label != named), named), facts.sources["positive"]
        else:
            source = "default"
            notes.append(_doubt(head, order))
    return Labels(order, "the spec" if said is not None else source, named, tuple(notes))


def _named(head: str, order: tuple[str, ...], facts: Facts, one_logit: bool, notes: list[str]) -> str | None:
    """The label that a checkpoint without class names calls positive."""
    if len(order) != 2:
        return None
    if facts.positive:
        alike = [label for label in order if _alike(label, facts.positive)]
        if len(alike) == 1:
            return alike[0]
        notes.append(
            f"Ignored {facts.sources['positive']}: it says {facts.positive}, which is not a label of head '{head}'."
        )
    elif facts.positive_index is not None:
        source = facts.sources["positive_index"]
        if not one_logit and facts.positive_index < 2:
            return order[facts.positive_index]
        if facts.positive_index != 1:
            notes.append(
                f"Warning: head '{head}': {source} says {facts.positive_index}, but nothing says which class that is; "
                f"the one logit's sigmoid is read as the probability of '{order[1]}'."
            )
    return None


def _reject_swapped(head: str, found: tuple[str, ...], source: str) -> None:
    for other, known in WELL_KNOWN_LABELS.items():
        if other != head and head in WELL_KNOWN_LABELS and _folded(found) == _folded(sorted(known)):
            raise SpecError(
                f"Head '{head}' separates {' and '.join(WELL_KNOWN_LABELS[head])}, but {source} says {shown(found)}, "
                f"as '{other}' would; are the two checkpoints swapped?"
            )


def _doubt(head: str, order: tuple[str, ...]) -> str:
    by_name = tuple(sorted(order))
    doubt = f"torchvision's ImageFolder sorts folders by name, which gives {shown(by_name)}" + (
        ", the other way round" if by_name != order else " too"
    )
    return (
        f"Warning: head '{head}': neither the spec nor the checkpoint says the labels' order; {shown(order)} is "
        f"assumed. {doubt}. Run `car-analyzer check FOLDER` on labelled photos, or give the order of training as "
        f"--{head}-labels {','.join(order)} or {','.join(order[::-1])}, or as `labels` in a spec."
    )


def _compare(head: str, said: tuple[str, ...], found: tuple[str, ...], source: str, notes: list[str]) -> None:
    if agree("labels", said, found):
        return
    # The spec may rename classes, unless a name means different classes on the two sides.
    crossed = any(_alike(one, other) for i, one in enumerate(said) for j, other in enumerate(found) if i != j) and not (
        len(said) == len(found) and all(_alike(one, other) for one, other in zip(said, found, strict=True))
    )
    if len(said) != len(found) or crossed:
        raise _contradiction(f"Head '{head}'", "labels", shown(said), shown(found), source)
    renamed = ", ".join(f"'{other}' is called '{one}'" for one, other in zip(said, found, strict=True))
    notes.append(f"Head '{head}': the spec renames the labels of {source}: {renamed}.")


def _alike(one: str, other: str) -> bool:
    """Whether they share a word, or the start of one: `damaged` and `01-damage`, but not `clean` and `unclean`."""
    return any(
        a == b or (min(len(a), len(b)) >= 4 and (a.startswith(b) or b.startswith(a)))
        for a in _words(one)
        for b in _words(other)
    )


def _words(label: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", label.casefold())


def _folded(labels: Sequence[str]) -> list[str]:
    return sorted(label.casefold().strip() for label in labels)


def _contradiction(owner: str, fact: str, said: str, found: str, source: str) -> SpecError:
    return SpecError(
        f"{owner}: the spec says {fact.replace('_', ' ')} {said}, but {source} says {found}; correct the one "
        "that is wrong."
    )
