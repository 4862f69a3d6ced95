"""Triton's Python backend runs this: `image` (photo bytes) in, uint8 RGB pixels [height, width, 3] out.

There is one output for each way in which the heads' networks look at a photo; all of them share one decoding.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import guard
import identity
import numpy as np
import triton_python_backend_utils as pb_utils
from photo import Photo, PhotoError
from view import View, ViewError, least_side_for

if TYPE_CHECKING:
    from collections.abc import Iterator

_C = ctypes.CDLL(None)
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# A picture of so many bytes is memory of its own, and given back with it; what is smaller is kept for the next one.
_LARGE = 8 << 20
_KEPT = 2 * _LARGE
# Opened once, not for every photo.
_NOWHERE = os.open(os.devnull, os.O_WRONLY)
_SIZES = os.open("/proc/self/statm", os.O_RDONLY)


class TritonPythonModel:
    """Decodes and resizes the photos of each request; a bad photo fails its own request and no other."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the limits from the model's configuration, and the views from beside this file.

        The configuration is one for all versions that are loaded at once; how to look at a photo is each version's own.
        """
        self._export_id = identity.read()
        parameters = json.loads(args["model_config"])["parameters"]
        self._limits = {name: json.loads(parameters[name]["string_value"]) for name in ("max_bytes", "max_pixels")}
        # What the largest photo takes: 4 bytes a pixel as decoded, and again as RGB.
        self._memory = 8 * self._limits["max_pixels"] + 32_000_000
        views = json.loads(Path(__file__).with_name("views.json").read_text(encoding="utf-8"))
        self._views = {name: View(**view) for name, view in views.items()}
        self._least_side = least_side_for(self._views.values())
        self._bytes = 0
        warnings.simplefilter("ignore")  # Pillow's, about oddities of single photos
        with contextlib.suppress(AttributeError):  # not glibc
            # Otherwise it keeps what large photos took, and the next one takes more on top of it.
            _C.mallopt(_M_MMAP_THRESHOLD, _LARGE)
            _C.mallopt(_M_TRIM_THRESHOLD, _KEPT)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers every request of a batch on its own."""
        responses = [self._respond(request) for request in requests]
        self._give_memory_back()
        return responses

    def _respond(self, request: Any) -> Any:
        if rejection := identity.rejection(request, self._export_id):
            return pb_utils.InferenceResponse(error=rejection)
        begun = guard.begin()
        try:
            response = self._answer(request)
        except Exception as error:  # noqa: BLE001 - of Triton, or of this machine: no photo gets here
            log(error, "A request")
            response = _failure("The server failed on this request.", "INTERNAL")
        guard.end(begun)
        return response

    def _answer(self, request: Any) -> Any:
        photos = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        pixels: dict[str, list[Any]] = {name: [] for name in self._views}
        for position, content in enumerate(photos, start=1):
            try:
                for name, picture in self._look_at(content).items():
                    pixels[name].append(picture)
            except Exception as error:  # noqa: BLE001 - whatever it is, this photo set it off
                message = _describe(error, content)
                message = message if len(photos) == 1 else f"Photo {position} of {len(photos)}: {message}"
                return _failure(message, "INVALID_ARG")
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.stack(parts)) for name, parts in pixels.items()])

    def _look_at(self, content: bytes) -> dict[str, Any]:
        # In a function of its own: a large photo is gone before the next one is decoded.
        self._bytes += len(content)
        photo = Photo(content, **self._limits, decoding=self._decoding(), least_side=self._least_side)
        return {
            name: view.pixels(photo.upright() if view.exif_rotation else photo.rgb)
            for name, view in self._views.items()
        }

    def _give_memory_back(self) -> None:
        # Some decoders take memory in millions of small pieces, which glibc would keep.
        if self._bytes > _LARGE:
            self._bytes = 0
            with contextlib.suppress(AttributeError):
                _C.malloc_trim(0)

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        with _bounded_memory(self._memory), silence():
            yield


def _describe(error: Exception, content: bytes) -> str:
    """What is wrong with a photo, in a sentence. What nobody foresaw stands in the log, for the operator only."""
    if isinstance(error, (PhotoError, ViewError)):
        return str(error)
    log(error, f"A photo of {len(content):,} bytes")
    return "The photo cannot be processed, for a reason that stands in the server's log; save it again in another way."


def _failure(message: str, code: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code)))


def log(error: Exception, what: str) -> None:
    """Tells the operator of an error that nobody foresaw, in one line: of which type, what it says, and where."""
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    reason = ascii(str(error))[:500]
    pb_utils.Logger.log_error(f"{what} failed unforeseen: {type(error).__name__} {reason} at {' > '.join(places)}")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Throws away what libraries write. libtiff has a line for each damaged row, which would end up in Triton's log."""
    kept = os.dup(2)
    try:
        os.dup2(_NOWHERE, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _bounded_memory(size: int) -> Iterator[None]:
    """Lets this process allocate at most so many more bytes. Decoders take that for a machine that has no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    held = int(os.pread(_SIZES, 200, 0).split()[5]) * resource.getpagesize()
    bound = held + size
    resource.setrlimit(resource.RLIMIT_DATA, (bound if hard < 0 else min(bound, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
