"""Decodes and resizes JPEGs with NVIDIA DALI, on a GPU (with its JPEG hardware, if it has any) or on the CPU.

Runs inside Triton, beside the Pillow step, which handles all photos that DALI would decode differently from Pillow.
"""

from __future__ import annotations

import ctypes
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jpeg_header import plain_header
from nvidia.dali import Pipeline, fn, types
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from view import View

# The most decoded pixels in one run; larger batches are split into several runs.
_PIXELS_AT_ONCE = 256_000_000
_NVJPEG_BACKEND_HARDWARE = 3


class DaliError(RuntimeError):
    """DALI failed on a whole run, possibly because of a single photo."""


@dataclass(frozen=True)
class Settings:
    """The settings of the decoder.

    Attributes:
        max_batch_size: The most photos in one run.
        device: The GPU; None for the CPU.
        hw_decoder_load: The share of a full batch for the GPU's JPEG hardware; ignored if there is none.
        fancy_upsampling: Interpolate colours as Pillow does, instead of repeating them.
        threads: CPU threads.
    """

    max_batch_size: int
    device: int | None = None
    hw_decoder_load: float = 0.9
    fancy_upsampling: bool = True
    threads: int = 4


@dataclass(frozen=True)
class Job:
    """A JPEG that DALI can decode.

    Attributes:
        content: Its bytes.
        pixels: Width times height.
        sizes: For each view the height and width to scale to, and the top and left of the crop.
    """

    content: bytes
    pixels: int
    sizes: tuple[tuple[int, int, int, int], ...]


class Decoder:
    """Decodes batches of JPEGs, and resizes each for every view.

    Args:
        views: By name; DALI must support each, see `supports`.
        limits: `max_bytes` and `max_pixels`, see `photo.Photo`.
        settings: The settings of the decoder.

    Raises:
        RuntimeError: DALI does not work on this machine.
    """

    def __init__(self, views: Mapping[str, View], limits: Mapping[str, int], settings: Settings) -> None:
        self._views = dict(views)
        self._limits = dict(limits)
        self._settings = settings
        self._upright = any(view.exif_rotation for view in views.values())
        self._sample = self._sample_job()
        self._pipeline = self._build()

    def job(self, content: bytes) -> Job | None:
        """The job for a photo; None if DALI would decode it differently from Pillow, or if it must be rejected."""
        header = plain_header(content, **self._limits)
        if header is None or (self._upright and not header.is_upright):
            return None
        try:
            return self._job(content, header.width, header.height)
        except ValueError:  # a view rejects the size; the Pillow step reports the error
            return None

    def decode(self, jobs: list[Job], *, on_gpu: bool = True) -> list[dict[str, Any]]:
        """Decodes photos.

        Args:
            jobs: The photos.
            on_gpu: Leave the pixels in the GPU's memory; otherwise they are copied to the CPU, all in one piece.

        Returns:
            For each photo: view → uint8 [1, height, width, 3], a numpy array, or DALI's tensor in the GPU's memory.

        Raises:
            DaliError: DALI failed. The decoder can be used again.
        """
        found: list[dict[str, Any]] = []
        for run in _in_runs(jobs, self._settings.max_batch_size):
            try:
                outputs = self._pipeline.run(**self._inputs(run))
            except Exception as error:
                # A pipeline cannot be used after an error.
                self._pipeline = self._build()
                raise DaliError(reason(error)) from error
            if self._settings.device is None or not on_gpu:
                outputs = [output.as_cpu().as_array() for output in outputs]
            views = dict(zip(self._views, outputs, strict=True))
            found += [{name: output[position] for name, output in views.items()} for position in range(len(run))]
        return found

    def warm_up(self) -> None:
        """Decodes a single photo, after the full batch of the start, so that the first request waits for nothing.

        Raises:
            DaliError: DALI does not work on this machine.
        """
        self.decode([self._sample])

    def _sample_job(self) -> Job:
        file = io.BytesIO()
        Image.new("RGB", (640, 480), "gray").save(file, "JPEG")
        return self._job(file.getvalue(), 640, 480)

    def _job(self, content: bytes, width: int, height: int) -> Job:
        sizes = [(view, view.scaled_size((width, height))) for view in self._views.values()]
        return Job(content, width * height, tuple((*size[::-1], *view.corner(size)[::-1]) for view, size in sizes))

    def _inputs(self, jobs: list[Job]) -> dict[str, Any]:
        """The pipeline's inputs for one run."""
        sizes = np.array([job.sizes for job in jobs], np.int32)
        inputs: dict[str, Any] = {"jpegs": [np.frombuffer(job.content, np.uint8) for job in jobs]}
        for number, view in enumerate(self._views.values()):
            if view.shortest_edge is not None:
                inputs[f"size_{number}"] = list(sizes[:, number, :2].astype(np.float32))
                inputs[f"corner_{number}"] = list(sizes[:, number, 2:])
        return inputs

    def _build(self) -> Any:
        settings = self._settings
        device = "cpu" if settings.device is None else "gpu"
        pipeline = Pipeline(
            batch_size=settings.max_batch_size,
            num_threads=settings.threads,
            device_id=settings.device,
            # No prefetching: a response must not wait for the next request.
            prefetch_queue_depth=1,
            # Outputs stay valid after the next run.
            exec_dynamic=True,
        )
        with pipeline:
            options = (
                {"device": "cpu"}
                if device == "cpu"
                else {
                    "device": "mixed",
                    "hw_decoder_load": settings.hw_decoder_load,
                    "jpeg_fancy_upsampling": settings.fancy_upsampling,
                }
            )
            jpegs = fn.external_source(name="jpegs", dtype=types.UINT8, ndim=1)
            # Photos with an EXIF orientation that must be applied are left to Pillow.
            pictures = fn.decoders.image(jpegs, output_type=types.RGB, adjust_orientation=False, **options)
            outputs = [self._resized(number, view, pictures) for number, view in enumerate(self._views.values())]
            pipeline.set_outputs(*outputs)
        pipeline.build()
        # The first batch must be a full one: nvImageCodec multiplies its size by `hw_decoder_load`, and from then on
        # gives the JPEG hardware no more photos of any batch.
        pipeline.run(**self._inputs([self._sample] * settings.max_batch_size))
        return pipeline

    @staticmethod
    def _resized(number: int, view: View, pictures: Any) -> Any:
        linear = {"interp_type": types.INTERP_LINEAR, "antialias": True, "dtype": types.UINT8}
        if view.shortest_edge is None:
            pixels = fn.resize(pictures, size=[view.height, view.width], **linear)
        else:
            size = fn.external_source(name=f"size_{number}", dtype=types.FLOAT, ndim=1)
            corner = fn.external_source(name=f"corner_{number}", dtype=types.INT32, ndim=1)
            scaled = fn.resize(pictures, size=size, **linear)
            pixels = fn.slice(scaled, start=corner, shape=[view.height, view.width], axes=[0, 1])
        return fn.expand_dims(pixels, axes=0)


def supports(view: View) -> bool:
    """Whether DALI resizes for this view like Pillow; its other filters differ."""
    return bool(view.antialias and view.interpolation == "bilinear")


def where(device: int | None) -> str:
    """What decodes JPEGs, for the log; known as soon as a decoder exists."""
    if device is None:
        return "the CPU"
    loaded = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    libraries = re.findall(r"/.*/libnvjpeg\.so.*", loaded)
    if not libraries:
        return f"the CPU, and resizes on GPU {device}, since libnvjpeg cannot be loaded"
    # On another GPU, the question would take memory of the first one.
    cores = _jpeg_cores(libraries[0]) if device == 0 else None
    if cores is None:
        return f"GPU {device}"
    return f"GPU {device}, whose JPEG hardware has {cores} cores" if cores else f"GPU {device}, without JPEG hardware"


def _jpeg_cores(library: str) -> int | None:
    """The number of JPEGs that the first GPU's hardware decodes at once; None if it is unknown."""
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    try:
        nvjpeg = ctypes.CDLL(library)
        if nvjpeg.nvjpegCreateEx(_NVJPEG_BACKEND_HARDWARE, None, None, 0, ctypes.byref(handle)):
            return 0
        failed = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
        nvjpeg.nvjpegDestroy(handle)
    except (OSError, AttributeError):
        return None
    return None if failed else engines.value * cores.value


def reason(error: Exception) -> str:
    """The line of a DALI error with the reason, without the location."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "encountered:" in lines:
        lines = lines[lines.index("encountered:") + 1 :]
    return lines[0] if lines else type(error).__name__


def _in_runs(jobs: list[Job], most: int) -> list[list[Job]]:
    runs: list[list[Job]] = []
    pixels = 0
    for job in jobs:
        if not runs or len(runs[-1]) == most or pixels + job.pixels > _PIXELS_AT_ONCE:
            runs.append([])
            pixels = 0
        runs[-1].append(job)
        pixels += job.pixels
    return runs
