"""Rejects requests for another export.

A client caches the labels. Meanwhile another Triton may answer at its address, or there may be several. So it sends the
id of the export whose labels it has with each request, in the parameter `export_id`, like `If-Match` in HTTP. Requests
without this parameter are always accepted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

_PARAMETER = "export_id"


def read() -> str:
    """Reads the id of the export that this version of the step belongs to."""
    return str(json.loads(Path(__file__).with_name("export.json").read_text(encoding="utf-8"))[_PARAMETER])


def rejection(request: Any, export_id: str) -> Any:
    """The error (NOT_FOUND, HTTP 404) for a request for another export; None for all others."""
    text = request.parameters()
    if _PARAMETER not in text:
        return None
    wanted = json.loads(text)[_PARAMETER]
    if wanted == export_id:
        return None
    message = f"Export {wanted} is not served here, but {export_id}; read the model's configuration again."
    return pb_utils.TritonError(message, pb_utils.TritonError.NOT_FOUND)
