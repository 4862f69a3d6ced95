"""The preprocess step with DALI, as `model.py` of Triton's Python backend.

The Pillow step, `pillow_model.py` in the same folder, handles the photos that DALI cannot decode, and all errors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import guard
import identity
import numpy as np
import photo_log
import triton_python_backend_utils as pb_utils
from pillow_model import TritonPythonModel as PillowModel
from pillow_model import log, silence
from view import View

_PARAMETERS = ("hw_decoder_load", "fancy_upsampling", "threads")


class TritonPythonModel:
    """Decodes and resizes the photos of a batch together; an invalid photo fails only its own request."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads limits, views and parameters, builds the pipeline, and warms it up."""
        self._export_id = identity.read()
        self._pillow = PillowModel()
        self._pillow.initialize(args)
        config = json.loads(args["model_config"])
        parameters = {
            name: json.loads(value["string_value"])
            for name, value in config["parameters"].items()
            if name in ("max_bytes", "max_pixels", "pixels_on", *_PARAMETERS)
        }
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self._stays_on_gpu = device is not None and parameters.get("pixels_on", "gpu") == "gpu"
        self._decoder = _decoder(config, parameters, device, args["model_instance_name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers every request of a batch separately."""
        self._pillow.backlog.wait(len(requests))
        start = guard.begin()
        responses = self._with_dali(requests) if self._decoder is not None else [None] * len(requests)
        if photo_log.IS_ON:
            for request, response in zip(requests, responses, strict=True):
                if response is not None:
                    photo_log.log_photos(request, response, start)
        rest = [position for position, response in enumerate(responses) if response is None]
        for position, response in zip(rest, self._pillow.execute([requests[each] for each in rest]), strict=True):
            responses[position] = response
        guard.end(start)
        return responses

    def _with_dali(self, requests: list[Any]) -> list[Any]:
        """The responses to requests whose photos DALI can all decode; None for the others."""
        try:
            jobs = [self._jobs(request) for request in requests]
            # The photos of one request must be one tensor, which only the CPU can make of them.
            on_gpu = self._stays_on_gpu and all(len(few) <= 1 for few in jobs)
            with silence():
                decoded = iter(self._decoder.decode([job for few in jobs for job in few], on_gpu=on_gpu))
            return [self._response([next(decoded) for _ in few]) if few else None for few in jobs]
        except RuntimeError as error:
            pb_utils.Logger.log_verbose(f"DALI failed, and Pillow decodes the batch: {error}")
        except Exception as error:  # noqa: BLE001 - a photo must not fail the others of its batch
            log(error, f"DALI on {len(requests)} requests, which Pillow decodes,")
        return [None] * len(requests)

    def _jobs(self, request: Any) -> list[Any]:
        if identity.rejection(request, self._export_id):
            return []  # the Pillow step answers it
        photos = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        jobs = [self._decoder.job(content) for content in photos]
        return jobs if all(jobs) else []

    def _response(self, photos: list[dict[str, Any]]) -> Any:
        return pb_utils.InferenceResponse([self._tensor(name, [photo[name] for photo in photos]) for name in photos[0]])

    def _tensor(self, name: str, parts: list[Any]) -> Any:
        if len(parts) > 1:
            return pb_utils.Tensor(name, np.concatenate(parts))
        (pixels,) = parts
        if not isinstance(pixels, np.ndarray):
            try:
                return pb_utils.Tensor.from_dlpack(name, pixels.__dlpack__())
            except Exception as error:  # noqa: BLE001 - Triton raises many types; the CPU is the fallback
                self._stays_on_gpu = False
                pb_utils.Logger.log_warn(f"Triton does not accept pixels on a GPU; they are copied to the CPU: {error}")
            pixels = np.array(pixels.as_cpu())
        return pb_utils.Tensor(name, pixels)


def _decoder(config: dict[str, Any], parameters: dict[str, Any], device: int | None, name: str) -> Any:
    """The DALI decoder; None, with the reason in the log, if DALI is missing or does not work."""
    views = json.loads(Path(__file__).with_name("views.json").read_text(encoding="utf-8"))
    try:
        with silence():
            import dali_pipeline
    except ImportError as error:
        pb_utils.Logger.log_warn(f"{name}: Pillow decodes everything, since DALI cannot be imported: {error}")
        return None
    prepared = {view_name: View(**view) for view_name, view in views.items()}
    if not all(map(dali_pipeline.supports, prepared.values())):
        pb_utils.Logger.log_warn(f"{name}: Pillow decodes everything: DALI does bilinear, antialiased views only")
        return None
    limits = {each: parameters[each] for each in ("max_bytes", "max_pixels")}
    given = {each: parameters[each] for each in _PARAMETERS if each in parameters}
    settings = dali_pipeline.Settings(max(config["max_batch_size"], 1), device, **given)
    try:
        with silence():
            decoder = dali_pipeline.Decoder(prepared, limits, settings)
            decoder.warm_up()
            place = dali_pipeline.where(device)
    except RuntimeError as error:
        reason = dali_pipeline.reason(error)
        pb_utils.Logger.log_warn(f"{name}: Pillow decodes everything, since DALI does not work here: {reason}")
        return None
    pb_utils.Logger.log_info(f"{name}: DALI decodes on {place}")
    return decoder
