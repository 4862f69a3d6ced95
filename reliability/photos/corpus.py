"""All hostile photos in one row."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from .bombs import BOMBS
from .hollow import hollow
from .mutations import mutate
from .samples import samples
from .strangers import strangers

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Hostile:
    """One hostile photo.

    Attributes:
        kind: `sample`, `stranger`, `hollow`, `bomb` or `mutant`.
        name: What it is; with the seed, this tells how to make it again.
        content: Its bytes.
    """

    kind: str
    name: str
    content: bytes


def named() -> Iterator[Hostile]:
    """What is always tried: valid samples, files that are no photos or have no picture, and bombs."""
    yield from (Hostile("sample", name, content) for name, content in samples().items())
    yield from (Hostile("stranger", name, content) for name, content in strangers().items())
    yield from (Hostile("hollow", name, content) for name, content in hollow().items())
    yield from (Hostile("bomb", name, make()) for name, make in BOMBS.items())


def mutants(seed: int, count: int) -> Iterator[Hostile]:
    """Damaged copies of every sample in turn; each depends on the seed and its number only."""
    valid = list(samples().items())
    for number in range(count):
        random = Random(f"{seed}/{number}")
        name, content = valid[number % len(valid)]
        other = random.choice(valid)[1]
        yield Hostile("mutant", f"{name}, mutant {number}", mutate(content, other, random))
