"""Finds candidates among the networks of torchvision and timm by names and shapes alone.

`index.tsv` holds a line for each network: source, name, fingerprint and sketch of its body, which is all but the head.
Candidates are built and compared with the checkpoint, so an index of another library version does no harm.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .weights import UNUSED_BUFFER
from .zoo import HEADS, TORCHVISION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

FILE = Path(__file__).with_name("index.tsv")

_SKETCH_SIZE = 16
_HASH_BYTES = 3
# Any network shares a few common names with some network of the index by chance.
_MIN_SIMILARITY = 0.2


@dataclass(frozen=True)
class Entry:
    """A network of the index.

    Attributes:
        source: `torchvision` or `timm`.
        name: Its name there.
        fingerprint: Hash of the names and shapes of its body.
        sketch: The smallest hashes of those names, with and without shapes (MinHash): sketches overlap as bodies do.
    """

    source: str
    name: str
    fingerprint: str
    sketch: frozenset[bytes]

    @property
    def architecture(self) -> str:
        """As a user names it."""
        return f"{self.source}:{self.name}"

    @classmethod
    def of(cls, source: str, name: str, weights: Mapping[str, torch.Tensor]) -> Entry:
        """Describes a network, or a checkpoint, by its state_dict."""
        return cls(source, name, fingerprint(weights), _sketch(weights))

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """Reads a line of the file."""
        source, name, print_, sketch = line.split("\t")
        content = base64.b64decode(sketch)
        hashes = (content[start : start + _HASH_BYTES] for start in range(0, len(content), _HASH_BYTES))
        return cls(source, name, print_, frozenset(hashes))

    def to_line(self) -> str:
        """Writes a line of the file."""
        sketch = base64.b64encode(b"".join(sorted(self.sketch))).decode()
        return "\t".join((self.source, self.name, self.fingerprint, sketch))


def matching(weights: Mapping[str, torch.Tensor]) -> list[Entry]:
    """The networks whose body has exactly these names and shapes, with any head."""
    wanted = fingerprint(weights)
    return [entry for entry in entries() if entry.fingerprint == wanted]


def nearest(weights: Mapping[str, torch.Tensor], count: int) -> list[tuple[float, Entry]]:
    """The networks whose bodies share most names and shapes, with the share, best first; only similar ones."""
    sketch = _sketch(weights)
    scored = [(_similarity(sketch, entry.sketch), entry) for entry in entries()]
    good = [pair for pair in scored if pair[0] >= _MIN_SIMILARITY]
    good.sort(key=lambda pair: (-pair[0], pair[1].source != TORCHVISION, len(pair[1].name)))
    return good[:count]


@functools.cache
def entries() -> tuple[Entry, ...]:
    """The whole index."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return tuple(Entry.from_line(line) for line in lines if not line.startswith("#"))


def fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """Hashes the names and shapes of the body."""
    lines = sorted(f"{name} {shape}" for name, shape in _body(weights))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def is_position_table(name: str) -> bool:
    """Whether this is the position table of a transformer, which grows with the photo."""
    return name.rpartition(".")[2].startswith("pos_emb")


def _body(weights: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, str]]:
    for name, tensor in weights.items():
        if name.partition(".")[0] in HEADS or name.endswith(UNUSED_BUFFER):
            continue
        yield name, "*" if is_position_table(name) else "x".join(map(str, tensor.shape))


def _sketch(weights: Mapping[str, torch.Tensor]) -> frozenset[bytes]:
    features = {text for name, shape in _body(weights) for text in (name, f"{name} {shape}")}
    hashes = {hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).digest() for text in features}
    return frozenset(sorted(hashes)[:_SKETCH_SIZE])


def _similarity(one: frozenset[bytes], other: frozenset[bytes]) -> float:
    """Estimates the share of common features from the smallest hashes of both."""
    smallest = sorted(one | other)[:_SKETCH_SIZE]
    return sum(value in one and value in other for value in smallest) / max(len(smallest), 1)
