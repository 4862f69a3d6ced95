"""What the spec says and what the checkpoint says, made one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from ..spec import WELL_KNOWN_LABELS
from .facts import agree, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Facts

NO_REGRESSION = (
    "A regression output (a score) has no labels and cannot be served: a head needs one logit with two labels and a "
    "sigmoid, or as many logits as labels."
)
_FACTS = ("mean", "std", "image_size", "arch")


@dataclass(frozen=True)
class Effective:
    """What holds for a head.

    Attributes:
        labels: In logit order.
        mean: None: neither side says, so the exporter's default holds. Likewise below.
        std: Of the normalisation.
        image_size: Width and height.
        arch: The network's name, or where it is made.
        notes: What a person should know.
    """

    labels: tuple[str, ...]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    image_size: tuple[int, int] | None
    arch: str | None
    notes: tuple[str, ...]


def reconcile(
    head: str,
    facts: Facts,
    *,
    labels: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: tuple[int, int] | None = None,
    arch: str | None = None,
) -> Effective:
    """Decides between a spec and a checkpoint; where only one speaks, it is believed.

    Args:
        head: The head's name.
        facts: What the checkpoint says.
        labels: What the spec says itself, without defaults; None where it does not say. Likewise below.
        mean: Of the normalisation.
        std: Of the normalisation.
        image_size: Width and height.
        arch: A network's name, or `FILE.py:FACTORY`.

    Raises:
        SpecError: They contradict each other, or nobody says what the logits mean.
    """
    notes: list[str] = []
    spoken: dict[str, Any] = {
        "mean": tuple(mean) if mean is not None else None,
        "std": tuple(std) if std is not None else None,
        "image_size": image_size,
        "arch": arch,
    }
    for fact in _FACTS:
        said, found = spoken[fact], getattr(facts, fact)
        # A factory of one's own can be called anything.
        incomparable = fact == "arch" and ":" in str(said)
        if said is not None and found is not None and not incomparable and not agree(fact, said, found):
            raise _contradiction(head, fact, shown(said), shown(found), facts)
        if said is None and found is not None:
            notes.append(f"Head '{head}': {fact.replace('_', ' ')} {shown(found)} is from {facts.sources[fact]}.")
    chosen = {fact: spoken[fact] if spoken[fact] is not None else getattr(facts, fact) for fact in _FACTS}
    order = _labels(head, facts, labels, notes)
    return Effective(order, **chosen, notes=tuple(notes))


def _labels(head: str, facts: Facts, said: Sequence[str] | None, notes: list[str]) -> tuple[str, ...]:
    found = facts.labels
    if said is not None:
        if found is not None:
            _compare(head, tuple(said), found, facts, notes)
        return tuple(said)
    if found is not None:
        for other, known in WELL_KNOWN_LABELS.items():
            if other != head and head in WELL_KNOWN_LABELS and _folded(found) == _folded(sorted(known)):
                raise SpecError(
                    f"Head '{head}' tells {' from '.join(WELL_KNOWN_LABELS[head])}, but {facts.sources['labels']} says "
                    f"{shown(found)}, as '{other}' would; are the two checkpoints swapped?"
                )
        notes.append(f"Head '{head}': the labels' order, {shown(found)}, is from {facts.sources['labels']}.")
        return found
    if head not in WELL_KNOWN_LABELS:
        raise SpecError(
            f"Head '{head}' has no labels, and its checkpoint names none; list them in the spec in the order of the "
            f'logits, as labels = ["...", "..."]. {NO_REGRESSION}'
        )
    order = WELL_KNOWN_LABELS[head]
    by_name = tuple(sorted(order))
    doubt = f"torchvision's ImageFolder sorts folders by name, which gives {shown(by_name)}" + (
        ", the other way round" if by_name != order else " too"
    )
    notes.append(
        f"Warning: head '{head}': neither the spec nor the checkpoint says the labels' order; {shown(order)} is "
        f"assumed. {doubt}. Run `car-analyzer check FOLDER` on labelled photos."
    )
    return order


def _compare(head: str, said: tuple[str, ...], found: tuple[str, ...], facts: Facts, notes: list[str]) -> None:
    if agree("labels", said, found):
        return
    # Other names for the same classes are the spec's right, unless one name stands for another class on the other side.
    crossed = any(_alike(one, other) for i, one in enumerate(said) for j, other in enumerate(found) if i != j) and not (
        len(said) == len(found) and all(_alike(one, other) for one, other in zip(said, found, strict=True))
    )
    if len(said) != len(found) or crossed:
        raise _contradiction(head, "labels", shown(said), shown(found), facts)
    renamed = ", ".join(f"'{other}' is called '{one}'" for one, other in zip(said, found, strict=True))
    notes.append(f"Head '{head}': the spec renames the labels of {facts.sources['labels']}: {renamed}.")


def _alike(one: str, other: str) -> bool:
    """Whether a word of the one is, or begins, a word of the other: `damaged`, `01-damage`; not `clean`, `unclean`."""
    return any(
        a == b or (min(len(a), len(b)) >= 4 and (a.startswith(b) or b.startswith(a)))
        for a in _words(one)
        for b in _words(other)
    )


def _words(label: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", label.casefold())


def _folded(labels: Sequence[str]) -> list[str]:
    return sorted(label.casefold().strip() for label in labels)


def _contradiction(head: str, fact: str, said: str, found: str, facts: Facts) -> SpecError:
    return SpecError(
        f"Head '{head}': the spec says {fact.replace('_', ' ')} {said}, but "
        f"{facts.sources.get(fact, 'the checkpoint')} says {found}; correct the one that is wrong."
    )
