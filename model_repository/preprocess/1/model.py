"""Triton's Python backend runs this: `image` (photo bytes) in, uint8 RGB pixels [height, width, 3] out.

There is one output for each way in which the heads' networks look at a photo; all of them share one decoding.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from photo import Photo, PhotoError
from view import View


class TritonPythonModel:
    """Decodes and resizes the photos of each request; a bad photo fails its own request and no other."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the limits from the model's configuration, and the views from beside this file.

        The configuration is one for all versions that are loaded at once; how to look at a photo is each version's own.
        """
        parameters = json.loads(args["model_config"])["parameters"]
        self._limits = {name: json.loads(parameters[name]["string_value"]) for name in ("max_bytes", "max_pixels")}
        views = json.loads(Path(__file__).with_name("views.json").read_text(encoding="utf-8"))
        self._views = {name: View(**view) for name, view in views.items()}
        warnings.simplefilter("ignore")  # Pillow's, about oddities of single photos

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers every request of a batch on its own."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        photos = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        pixels: dict[str, list[Any]] = {name: [] for name in self._views}
        for position, content in enumerate(photos, start=1):
            try:
                photo = Photo(content, **self._limits)
                for name, view in self._views.items():
                    pixels[name].append(view.pixels(photo.upright() if view.exif_rotation else photo.rgb))
            except PhotoError as error:
                message = str(error) if len(photos) == 1 else f"Photo {position} of {len(photos)}: {error}"
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.stack(parts)) for name, parts in pixels.items()])
