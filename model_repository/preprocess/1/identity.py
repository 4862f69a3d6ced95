"""Rejects requests that are meant for another export than this one.

A client reads the labels once and keeps them. Behind its address, Triton may be replaced by another one meanwhile, or
there may be several. So it says with each request which export's labels it holds, in the request parameter `export_id`,
as HTTP clients do with `If-Match`. Requests without this parameter are answered as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

_PARAMETER = "export_id"


def read() -> str:
    """The identity of the export that this version of the step belongs to."""
    return str(json.loads(Path(__file__).with_name("export.json").read_text(encoding="utf-8"))[_PARAMETER])


def rejection(request: Any, export_id: str) -> Any:
    """An error (NOT_FOUND, HTTP 404) for a request that asks for another export; None for all others."""
    text = request.parameters()
    if _PARAMETER not in text:
        return None
    wanted = json.loads(text)[_PARAMETER]
    if wanted == export_id:
        return None
    message = f"Export {wanted} is not served here, but {export_id}; read the model's configuration again."
    return pb_utils.TritonError(message, pb_utils.TritonError.NOT_FOUND)
