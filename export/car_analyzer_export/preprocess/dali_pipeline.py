"""JPEGs to pixels with NVIDIA DALI: on a GPU, with its JPEG hardware if it has some, or with DALI's CPU operators.

Runs inside Triton, beside the files of the Pillow step, to which everything goes that DALI does not do as Pillow does.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import Pipeline, fn, types
from photo import header
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from view import View

# What one run may hold as decoded pixels. Photos beyond that are decoded in several runs.
_PIXELS_AT_ONCE = 256_000_000
_ORIENTATION = 0x0112
_START_OF_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# Otherwise decoders take the three colours for RGB, and not all decoders do.
_YCBCR = ([1, 2, 3], [0, 1, 2])


class DaliError(RuntimeError):
    """DALI failed on a whole run, be it for one photo only."""


@dataclass(frozen=True)
class Settings:
    """How to decode.

    Attributes:
        max_batch_size: Photos in one run at most.
        device: The GPU; None for the CPU.
        hw_decoder_load: The share of the JPEGs for the GPU's JPEG hardware; where there is none, this is nothing.
        fancy_upsampling: Interpolate colours as Pillow does, instead of repeating them.
        threads: Of the CPU.
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
        sizes: For each view height and width to scale to, and top and left of what is cut out.
    """

    content: bytes
    pixels: int
    sizes: tuple[tuple[int, int, int, int], ...]


class Decoder:
    """Decodes batches of JPEGs, and looks at each in every way that is asked for.

    Args:
        views: By name; each must be one that `can_look`.
        limits: `max_bytes` and `max_pixels`, see `photo.Photo`.
        settings: How to decode.
    """

    def __init__(self, views: Mapping[str, View], limits: Mapping[str, int], settings: Settings) -> None:
        self._views = dict(views)
        self._limits = dict(limits)
        self._settings = settings
        self._upright = any(view.exif_rotation for view in views.values())
        self._pipeline = self._build()

    def job(self, content: bytes) -> Job | None:
        """What to do with a photo; None if DALI would not decode it as Pillow does, or if it must be refused."""
        try:
            image = header(content, **self._limits)
            if not self._is_plain(image) or not _is_whole(content):
                return None
            sizes = [(view, view.scaled_size(image.size)) for view in self._views.values()]
        except Exception:  # noqa: BLE001 - whatever it is, the other step says it
            return None
        placed = [(*size[::-1], *view.corner(size)[::-1]) for view, size in sizes]
        return Job(content, image.width * image.height, tuple(placed))

    def decode(self, jobs: list[Job]) -> list[dict[str, Any]]:
        """Decodes photos.

        Returns:
            For each photo: view → uint8 [1, height, width, 3], a numpy array, or DALI's tensor in the GPU's memory.

        Raises:
            DaliError: It failed, and can be called again.
        """
        found: list[dict[str, Any]] = []
        for run in _in_runs(jobs, self._settings.max_batch_size):
            try:
                outputs = self._run(run)
            except Exception as error:
                # A pipeline that failed once is of no use any more.
                self._pipeline = self._build()
                raise DaliError(reason(error)) from error
            for position in range(len(run)):
                parts = [output[position] for output in outputs]
                parts = [np.array(part) for part in parts] if self._settings.device is None else parts
                found.append(dict(zip(self._views, parts, strict=True)))
        return found

    def warm_up(self) -> None:
        """Decodes a full batch, so that the first request does not wait for libraries and memory.

        Raises:
            DaliError: This machine cannot do it.
        """
        file = io.BytesIO()
        Image.new("RGB", (640, 480), "gray").save(file, "JPEG")
        job = self.job(file.getvalue())
        assert job is not None  # noqa: S101 - just made to be one
        for size in (1, self._settings.max_batch_size):
            self.decode([job] * size)

    def _is_plain(self, image: Any) -> bool:
        if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
            return False
        identifiers = [layer[0] for layer in image.layer]
        if image.mode == "RGB" and (identifiers not in _YCBCR or image.info.get("adobe_transform") == 0):
            return False
        return not self._upright or bool(image.getexif().get(_ORIENTATION, 1) == 1)

    def _run(self, jobs: list[Job]) -> Any:
        sizes = np.array([job.sizes for job in jobs], np.int32)
        inputs: dict[str, Any] = {"jpegs": [np.frombuffer(job.content, np.uint8) for job in jobs]}
        for number, view in enumerate(self._views.values()):
            if view.shortest_edge is not None:
                inputs[f"size_{number}"] = list(sizes[:, number, :2].astype(np.float32))
                inputs[f"corner_{number}"] = list(sizes[:, number, 2:])
        return self._pipeline.run(**inputs)

    def _build(self) -> Any:
        settings = self._settings
        device = "cpu" if settings.device is None else "gpu"
        pipeline = Pipeline(
            batch_size=settings.max_batch_size,
            num_threads=settings.threads,
            device_id=settings.device,
            # One run at a time: the answer to a request must not wait for the next request.
            prefetch_queue_depth=1,
            # Outputs live as long as they are needed, not only until the next run.
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
            # EXIF orientation is not the decoder's: photos to be turned are not given to it.
            pictures = fn.decoders.image(jpegs, output_type=types.RGB, adjust_orientation=False, **options)
            outputs = [self._look(number, view, pictures) for number, view in enumerate(self._views.values())]
            pipeline.set_outputs(*outputs)
        pipeline.build()
        return pipeline

    @staticmethod
    def _look(number: int, view: View, pictures: Any) -> Any:
        linear = {"interp_type": types.INTERP_LINEAR, "antialias": True, "dtype": types.UINT8}
        if view.shortest_edge is None:
            seen = fn.resize(pictures, size=[view.height, view.width], **linear)
        else:
            size = fn.external_source(name=f"size_{number}", dtype=types.FLOAT, ndim=1)
            corner = fn.external_source(name=f"corner_{number}", dtype=types.INT32, ndim=1)
            scaled = fn.resize(pictures, size=size, **linear)
            seen = fn.slice(scaled, start=corner, shape=[view.height, view.width], axes=[0, 1])
        return fn.expand_dims(seen, axes=0)


def can_look(view: View) -> bool:
    """Whether DALI scales as this view asks for; its other filters are not Pillow's."""
    return bool(view.antialias and view.interpolation == "bilinear")


def reason(error: Exception) -> str:
    """The line of an error of DALI that says what happened, not where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "encountered:" in lines:
        lines = lines[lines.index("encountered:") + 1 :]
    return lines[0] if lines else type(error).__name__


def _is_whole(content: bytes) -> bool:
    """Whether the last picture in a file comes to its end. Of one that breaks off, DALI may hand out what there is."""
    return content.find(_END, max(content.rfind(_START_OF_SCAN), 0)) >= 0


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
