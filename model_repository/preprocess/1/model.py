"""Triton's Python backend runs this: `image` (photo bytes) in, `pixels` (uint8 RGB [height, width, 3]) out."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from photo import PhotoError, Preprocessing


class TritonPythonModel:
    """Decodes and resizes the photos of each request; a bad photo fails its own request and no other."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads size and limits from the model's configuration."""
        self._preprocessing = Preprocessing.from_model_config(json.loads(args["model_config"]))
        warnings.simplefilter("ignore")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers every request of a batch on its own."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        photos = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        pixels = []
        for position, photo in enumerate(photos, start=1):
            try:
                pixels.append(self._preprocessing.pixels(photo))
            except PhotoError as error:
                message = str(error) if len(photos) == 1 else f"Photo {position} of {len(photos)}: {error}"
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", np.stack(pixels))])
