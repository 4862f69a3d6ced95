"""The model of Triton's Python backend: takes `image` (photo bytes), returns uint8 RGB pixels [height, width, 3].

It has one output for each view of the networks; a photo is decoded once for all views.
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
import photo_log
import triton_python_backend_utils as pb_utils
from backlog import Backlog
from photo import InvalidPhotoError, Photo
from view import FAST_MISSING, View, ViewError, least_side_for

if TYPE_CHECKING:
    from collections.abc import Iterator

_C = ctypes.CDLL(None)
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# Allocations of this size are mapped separately and returned to the system; smaller ones are kept for the next photo.
_LARGE = 8 << 20
_KEPT = 2 * _LARGE
# Opened once, not for every photo.
_DEV_NULL = os.open(os.devnull, os.O_WRONLY)
_STATM = os.open("/proc/self/statm", os.O_RDONLY)


class TritonPythonModel:
    """Decodes and resizes the photos of each request; an invalid photo fails only its own request."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the limits from the model's configuration, and the views from `views.json`.

        All loaded versions share one configuration, but each version has its own views.
        """
        self._export_id = identity.read()
        config = json.loads(args["model_config"])
        parameters = {name: json.loads(value["string_value"]) for name, value in config["parameters"].items()}
        self._limits = {name: parameters[name] for name in ("max_bytes", "max_pixels")}
        # While the networks work on a batch, the next one is complete.
        self.backlog = Backlog(parameters.get("networks", []), args["model_version"], 2 * config["max_batch_size"])
        # For the largest photo: 4 bytes per decoded pixel, and again as RGB.
        self._memory = 8 * self._limits["max_pixels"] + 32_000_000
        views = json.loads(Path(__file__).with_name("views.json").read_text(encoding="utf-8"))
        self._views = {name: View(**view) for name, view in views.items()}
        self._least_side = least_side_for(self._views.values())
        wants_fast = any(view.resampling == "fast" for view in self._views.values())
        # Once, not for each instance.
        if wants_fast and FAST_MISSING and args["model_instance_name"].endswith("_0"):
            pb_utils.Logger.log_warn(f"Pillow resizes the photos, which takes longer: {FAST_MISSING}")
        self._bytes = 0
        warnings.simplefilter("ignore")  # Pillow warns about single photos
        with contextlib.suppress(AttributeError):  # not glibc
            # Otherwise glibc keeps the memory of large photos, and the next one allocates more.
            _C.mallopt(_M_MMAP_THRESHOLD, _LARGE)
            _C.mallopt(_M_TRIM_THRESHOLD, _KEPT)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers every request of a batch separately."""
        responses = []
        for request in requests:
            self.backlog.wait()
            responses.append(self._respond(request))
        self._trim_memory()
        return responses

    def _respond(self, request: Any) -> Any:
        if rejection := identity.rejection(request, self._export_id):
            return pb_utils.InferenceResponse(error=rejection)
        start = guard.begin()
        try:
            response = self._answer(request)
            if photo_log.IS_ON:
                photo_log.log_photos(request, response, start)
        except Exception as error:  # noqa: BLE001 - an error of Triton or of this machine, not of a photo
            log(error, "A request")
            response = _failure("The server failed on this request.", "INTERNAL")
        guard.end(start)
        return response

    def _answer(self, request: Any) -> Any:
        photos = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        pixels: dict[str, list[Any]] = {name: [] for name in self._views}
        for position, content in enumerate(photos, start=1):
            try:
                for name, picture in self._prepare(content).items():
                    pixels[name].append(picture)
            except Exception as error:  # noqa: BLE001 - any error here is caused by this photo
                message = _describe(error, content)
                message = message if len(photos) == 1 else f"Photo {position} of {len(photos)}: {message}"
                return _failure(message, "INVALID_ARG")
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.stack(parts)) for name, parts in pixels.items()])

    def _prepare(self, content: bytes) -> dict[str, Any]:
        # A separate function, so that a large photo is freed before the next one is decoded.
        self._bytes += len(content)
        photo = Photo(content, **self._limits, decoding=self._decoding(), least_side=self._least_side)
        return {name: view.prepare(photo) for name, view in self._views.items()}

    def _trim_memory(self) -> None:
        # Some decoders allocate millions of small blocks, which glibc would keep.
        if self._bytes > _LARGE:
            self._bytes = 0
            with contextlib.suppress(AttributeError):
                _C.malloc_trim(0)

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        with _memory_limit(self._memory), silence():
            yield


def _describe(error: Exception, content: bytes) -> str:
    """The sentence for the client. Details of unexpected errors are only logged."""
    if isinstance(error, (InvalidPhotoError, ViewError)):
        return str(error)
    log(error, f"A photo of {len(content):,} bytes")
    return "The photo cannot be processed; the reason is in the server's log. Save the photo again in another way."


def _failure(message: str, code: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code)))


def log(error: Exception, what: str) -> None:
    """Logs an unexpected error in one line: its type, message and location."""
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    reason = ascii(str(error))[:500]
    pb_utils.Logger.log_error(f"{what} failed unexpectedly: {type(error).__name__} {reason} at {' > '.join(places)}")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discards what libraries write to stderr. libtiff writes a line for each damaged row, which would fill the log."""
    stderr = os.dup(2)
    try:
        os.dup2(_DEV_NULL, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Lets this process allocate at most `size` more bytes. For decoders this looks like a machine without memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(os.pread(_STATM, 200, 0).split()[5]) * resource.getpagesize()
    limit = used + size
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
