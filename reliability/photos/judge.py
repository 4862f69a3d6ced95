"""What must become of a photo: Pillow and PyTorch say so, in a process of their own that may come to harm."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from reliability.known import TOLERANCE, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
MAX_BYTES, MAX_PIXELS, MAX_SIDE = 20_000_000, 64_000_000, 65_535
# The kinds of files that may have fewest pixels may have an eighth, of which a photo has to be near.
LEAST_LIMIT = MAX_PIXELS // 8

LIMITS = {
    "bytes": re.compile(r"has [\d,]+ bytes; at most"),
    "pixels": re.compile(r"megapixels\); at most [\d.]+ megapixels are accepted"),
    "side": re.compile(r"at most 65,535 are accepted along a side"),
    "memory": re.compile(r"too much memory"),
    "scans": re.compile(r"JPEG of more than"),
    "profiles": re.compile(r"colour profiles; at most"),
    "pieces": re.compile(r"too many small pieces|more than \d+ parts|strips or tiles; at most"),
}


# What can be seen without opening the photo.
_IN_BYTES: Mapping[str | None, Callable[[bytes], bool]] = {
    "bytes": lambda content: len(content) > MAX_BYTES,
    "scans": lambda content: content.count(b"\xff\xda") > 16 or content.count(b"\xff") > 10_000,
    "profiles": lambda content: content.count(b"iCCP") > 64,
    "pieces": lambda content: len(content) > 200_000,
}
PATIENCE_S = 120
# The server says so where it has no reason of its own: a refusal by chance, for a photo that nobody thought of.
UNFORESEEN = "the reason is in the server's log"


@dataclass(frozen=True)
class Judgement:
    """What Pillow and PyTorch make of a photo.

    Attributes:
        logits: The answer, or None if Pillow refuses it.
        size: What its header says, if it has one.
        reason: Why Pillow refuses it.
    """

    logits: Mapping[str, Sequence[float]] | None
    size: tuple[int, int] | None = None
    reason: str = ""


class Judge:
    """Judges photos.

    Args:
        pool: Where. For files that may do harm, `harmless_pool`.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    def complaint(self, content: bytes, answer: Mapping[str, Sequence[float]] | str) -> str | None:
        """What is wrong with an answer: logits, or the sentence of a refusal. None if nothing is."""
        if isinstance(answer, str):
            if UNFORESEEN in answer:
                return f"refused, but unforeseen: {answer}"
            limit = next((name for name, pattern in LIMITS.items() if pattern.search(answer)), None)
            if limit in _IN_BYTES:
                # Not opened: this is what takes Pillow minutes.
                return None if _IN_BYTES[limit](content) else f"refused for its {limit}: {answer}"
            judged = self._pool.submit(judge, content, decode=limit is None).result(PATIENCE_S)
            return _complain_of_limit(limit, content, judged) if limit else _complain_of_refusal(answer, judged)
        judged = self._pool.submit(judge, content, decode=True).result(PATIENCE_S)
        if judged.logits is None:
            return f"answered, but Pillow refuses it: {judged.reason}"
        if any(not np.allclose(answer[head], judged.logits[head], rtol=0, atol=TOLERANCE) for head in judged.logits):
            return f"answered {answer}, not {judged.logits}"
        return None


def harmless_pool(workers: int = 2) -> ProcessPoolExecutor:
    """Processes of Pillow and PyTorch only, without what the harness has imported."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # libtiff writes a line for each damaged row.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def judge(content: bytes, *, decode: bool) -> Judgement:
    """Opens a photo, and decodes it if its header keeps the limits and this is asked for."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            size = image.size
    except Exception as error:  # noqa: BLE001 - whatever Pillow says
        return Judgement(None, reason=f"{type(error).__name__}: {error}")
    if not decode or len(content) > MAX_BYTES or size[0] * size[1] > MAX_PIXELS:
        return Judgement(None, size, "over a limit")
    try:
        return Judgement(reference(content), size)
    except Exception as error:  # noqa: BLE001
        return Judgement(None, size, f"{type(error).__name__}: {error}")


def _complain_of_limit(limit: str, content: bytes, judged: Judgement) -> str | None:
    width, height = judged.size or (0, 0)
    over = {
        # Some files name their size in a place that Pillow refuses to open for another reason.
        "pixels": judged.size is None or width * height > LEAST_LIMIT,
        "side": max(width, height) > MAX_SIDE,
        "memory": width * height > LEAST_LIMIT or judged.size is None or len(content) > MAX_BYTES // 10,
    }
    return (
        None if over[limit] else f"refused for its {limit}, with {len(content):,} bytes and {width} x {height} pixels"
    )


def _complain_of_refusal(answer: str, judged: Judgement) -> str | None:
    return None if judged.logits is None else f"refused, but Pillow and PyTorch answer {judged.logits}: {answer}"
