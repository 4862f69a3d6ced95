"""Examples of answers and errors, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from ._errors import BUSY, INVALID_FEEDBACK, STOPPING, UNKNOWN_PHOTO

# Each status: what it means, and a sentence for each code.
Errors = dict[str, tuple[str, dict[str, str]]]
ERRORS: Errors = {
    "400": (
        "There is no photo, or it cannot be read.",
        {
            "photo.invalid": "The photo is damaged and cannot be decoded: image file is truncated.",
            "photo.empty": "The photo is empty: it has 0 bytes.",
            "photo.too_large": "The photo is 9000 x 9000 pixels (81 megapixels); at most 64 megapixels are accepted.",
            "request.invalid": "No photo: send it as the multipart field 'image'; the form is empty.",
        },
    ),
    "401": (
        "The token is missing or wrong.",
        {"request.unauthorized": "The token is not the right one."},
    ),
    "408": (
        "The upload took too long.",
        {"request.timeout": "The photo did not arrive within 30 seconds."},
    ),
    "413": (
        "A photo is too large, or there are too many.",
        {
            "photo.too_large": "The photo is too large; at most 20,000,000 bytes are accepted.",
            "request.too_large": "There are too many photos in one request; at most 16 are accepted.",
        },
    ),
    "415": (
        "The body is neither a multipart form nor an image.",
        {"request.media_type": "Photos are sent as they are, without a Content-Encoding."},
    ),
    "500": (
        "A bug in the gateway.",
        {"service.failed": "The gateway failed; its log has the details under this request's id."},
    ),
    "502": (
        "Triton failed on this photo, or its model is unsuitable.",
        {
            "service.failed": "The model server failed on this photo.",
            "model.unsuitable": "The model server has a model that this gateway cannot read.",
            "model.not_explainable": "The model cannot explain its answers; export it with a newer version.",
            "configuration.invalid": "The model server has a model that this gateway cannot read.",
        },
    ),
    "503": (
        "Too busy, shutting down, or Triton is down: try again later.",
        {
            "service.overloaded": BUSY,
            "service.unreachable": "The model server cannot be reached; try again in a moment.",
            "model.not_ready": "The model is not loaded; try again in a moment.",
            STOPPING: "The service is stopping; try again in a moment.",
        },
    ),
    "504": (
        "There was no answer within the timeout.",
        {"service.deadline_exceeded": "There was no answer within 30 seconds."},
    ),
}

FEEDBACK_ERRORS: Errors = {
    "400": (
        "The feedback is malformed, or has an unknown head or label.",
        {INVALID_FEEDBACK: '"wet" is not a label of condition; its labels are intact, damaged.'},
    ),
    "404": (
        "The photo is unknown, or was answered too long ago.",
        {UNKNOWN_PHOTO: "The photo of the request 'abc' is unknown, or was answered too long ago."},
    ),
    "408": (
        "The feedback took too long to arrive.",
        {"request.timeout": "The feedback did not arrive within 30 seconds."},
    ),
    "413": (
        "The feedback is too large.",
        {"request.too_large": "The feedback is too large; at most 8,192 bytes are accepted."},
    ),
    "415": (
        "The body is not JSON.",
        {"request.media_type": "Send feedback with the Content-Type application/json."},
    ),
    "500": ERRORS["500"],
    "503": (
        "Too busy: try again later.",
        {"service.overloaded": BUSY},
    ),
}
CHOICES_ERRORS: Errors = {
    "400": (
        "The parameter is missing.",
        {"request.invalid": "The parameter request_id is missing: the X-Request-ID of an answer."},
    ),
    **{status: FEEDBACK_ERRORS[status] for status in ("404", "500", "503")},
}
CHOICES: dict[str, Any] = {
    "heads": {
        "cleanliness": {"label": "dirty", "labels": ["clean", "dirty"]},
        "condition": {"label": "intact", "labels": ["intact", "damaged"]},
    }
}
FEEDBACK: dict[str, Any] = {
    "one head": {"value": {"request_id": "abc", "labels": {"condition": "damaged"}}},
    "a multilabel head": {"value": {"request_id": "abc-2", "labels": {"damage": ["dent", "scratch"]}}},
}

ANALYSIS: dict[str, Any] = {
    "cleanliness": "dirty",
    "cleanlinessConfidence": 0.97,
    "condition": "intact",
    "conditionConfidence": 0.88,
    "processingTime": 41.3,
}
EXPLAINED: dict[str, Any] = {
    **ANALYSIS,
    "explanations": {
        "condition": {
            "method": "occlusion",
            "labels": ["intact"],
            "box": {"left": 80.0, "top": 0.0, "width": 480.0, "height": 480.0},
            "photo": {"width": 640, "height": 480, "orientation": 1},
            "overlay": "data:image/png;base64,iVBORw0KGgo…",
        }
    },
}
FAILED = {"error": ERRORS["400"][1]["photo.invalid"], "code": "photo.invalid"}
ANSWERS: dict[str, Any] = {
    "one photo": {"value": ANALYSIS},
    "several photos, one of them damaged": {"value": [ANALYSIS, FAILED]},
    "one photo, with explain=1": {"value": EXPLAINED},
    "one photo, other heads": {
        "value": {"damage": ["dent", "scratch"], "damageConfidence": 0.81, "processingTime": 38.9}
    },
}
