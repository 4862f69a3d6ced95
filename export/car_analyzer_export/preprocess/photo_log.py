"""Logs a line for each photo, if the environment variable CAR_ANALYZER_LOG_PHOTOS is 1."""

from __future__ import annotations

import os
import time
from typing import Any

import triton_python_backend_utils as pb_utils
from photo import header

IS_ON = os.environ.get("CAR_ANALYZER_LOG_PHOTOS") == "1"


def log_photos(request: Any, response: Any, start: float) -> None:
    """Logs the photos of a request: bytes, format and dimensions, the duration of the step, and the result.

    Args:
        request: The request.
        response: Its response.
        start: When the step began, on the monotonic clock.
    """
    milliseconds = (time.monotonic() - start) * 1000
    for content in pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1):
        pb_utils.Logger.log_info(
            f"photo request_id={request.request_id()!a} bytes={len(content)} "
            f"milliseconds={milliseconds:.1f} {_result(response, content)}"
        )


def _result(response: Any, content: bytes) -> str:
    if response.has_error():
        return f"result=rejected reason={response.error().message()!a}"
    # Opened again, but not decoded. It was accepted, so its header is valid.
    with header(content, len(content), 2**62) as image:
        return f"result=ok format={image.format} width={image.width} height={image.height}"
