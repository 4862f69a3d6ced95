"""The test oracle: Pillow and PyTorch tell the expected answer to a photo, in a process that may come to harm."""

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
from pillow_heif import register_heif_opener

from reliability.reference import TOLERANCE, reference_logits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
MAX_BYTES, MAX_PIXELS, MAX_SIDE = 20_000_000, 64_000_000, 65_535
# Some kinds of files may have only an eighth of the pixels; nothing smaller is near a limit.
LEAST_PIXELS = MAX_PIXELS // 8
# No sample, and hence no mutant, is larger; opening what is can take Pillow minutes.
LARGE_BYTES = 200_000
# Rejections for a limit, of which the header tells that it was exceeded, and for one that only the bytes tell.
_FOR_SIZE = re.compile(
    r"accepted of|are accepted along a side|megapixels are accepted|too much memory|composed of several"
)
_FOR_PIECES = re.compile(
    r"bytes; at most|JPEG of more than|profiles; at most|small pieces|than \d+ parts|tiles; at most"
)
# The preprocess step refers to its log where an unforeseen exception is the reason.
_UNFORESEEN = re.compile("server's log")
PATIENCE_S = 120


@dataclass(frozen=True)
class Decoded:
    """What Pillow and PyTorch make of a photo.

    Attributes:
        logits: The answer, or None if Pillow rejects it.
        size: Width and height in its header, if Pillow reads that.
        reason: Why Pillow rejects it.
    """

    logits: Mapping[str, Sequence[float]] | None
    size: tuple[int, int] | None = None
    reason: str = ""


class Oracle:
    """Compares answers with Pillow's and PyTorch's.

    Args:
        pool: Where photos are decoded: for files that may do harm, a `separate_pool`.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    def complaint(self, content: bytes, answer: Mapping[str, Sequence[float]] | str) -> str | None:
        """What is wrong with an answer: logits, or the message of a rejection. None if nothing is."""
        if isinstance(answer, str):
            return self._complaint_of_rejection(content, answer)
        decoded = self._decode(content)
        if decoded.logits is None:
            return f"answered, but Pillow rejects it: {decoded.reason}"
        if any(not np.allclose(answer[head], decoded.logits[head], rtol=0, atol=TOLERANCE) for head in decoded.logits):
            return f"answered {answer}, not {decoded.logits}"
        return None

    def _complaint_of_rejection(self, content: bytes, message: str) -> str | None:
        if _UNFORESEEN.search(message):
            return f"rejected, but for an unforeseen reason: {message}"
        if _FOR_PIECES.search(message):
            scans, segments, profiles = (content.count(mark) for mark in (b"\xff\xda", b"\xff", b"iCCP"))
            many = len(content) > LARGE_BYTES or scans > 16 or segments > 10_000 or profiles > 64
            return None if many else f"rejected for its pieces: {message}"
        if _FOR_SIZE.search(message):
            width, height = size = self._decode(content, header_only=True).size or (0, 0)
            # Pillow rejects some files for another reason before it reads the size.
            near = size == (0, 0) or width * height > LEAST_PIXELS or max(size) > MAX_SIDE
            near |= content[4:12] == b"ftypheic"  # each of its pictures has a size
            near |= "memory" in message and len(content) > MAX_BYTES // 10
            return None if near else f"rejected for its size of {width} x {height}: {message}"
        decoded = self._decode(content)
        return (
            None if decoded.logits is None else f"rejected, but Pillow and PyTorch answer {decoded.logits}: {message}"
        )

    def _decode(self, content: bytes, *, header_only: bool = False) -> Decoded:
        return self._pool.submit(decode, content, header_only=header_only).result(PATIENCE_S)


def separate_pool(workers: int = 2) -> ProcessPoolExecutor:
    """Processes of Pillow and PyTorch only, without what the harness has imported."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    register_heif_opener()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # libtiff writes a line for each corrupt row.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def decode(content: bytes, *, header_only: bool = False) -> Decoded:
    """Opens a photo, and decodes it if its header keeps the limits."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            size = image.size
    except Exception as error:  # noqa: BLE001 - whatever Pillow says
        return Decoded(None, reason=f"{type(error).__name__}: {error}")
    if header_only or len(content) > MAX_BYTES or size[0] * size[1] > MAX_PIXELS:
        return Decoded(None, size, "over a limit")
    try:
        return Decoded(reference_logits(content), size)
    except Exception as error:  # noqa: BLE001
        return Decoded(None, size, f"{type(error).__name__}: {error}")
