"""The corpus of hostile photos."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from .bombs import BOMBS
from .malformed import not_photos, without_picture
from .mutations import mutate
from .samples import samples

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class HostilePhoto:
    """One hostile photo.

    Attributes:
        kind: `sample`, `malformed`, `bomb` or `mutant`.
        name: What it is; with the seed, it is enough to make it again.
        content: The file's bytes.
    """

    kind: str
    name: str
    content: bytes


def malformed() -> Iterator[HostilePhoto]:
    """Valid samples, files that are no photos, and files without a picture."""
    yield from (HostilePhoto("sample", name, content) for name, content in samples().items())
    for files in (not_photos(), without_picture()):
        yield from (HostilePhoto("malformed", name, content) for name, content in files.items())


def bombs() -> Iterator[HostilePhoto]:
    """Files that cost much to decode."""
    return (HostilePhoto("bomb", name, make()) for name, make in BOMBS.items())


def mutants(seed: int, count: int) -> Iterator[HostilePhoto]:
    """Corrupted copies of every sample in turn; each depends on the seed and its number only."""
    valid = list(samples().items())
    for number in range(count):
        random = Random(f"{seed}/{number}")
        name, content = valid[number % len(valid)]
        other = random.choice(valid)[1]
        yield HostilePhoto("mutant", f"{name}, mutant {number}", mutate(content, other, random))
