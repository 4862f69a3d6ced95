"""The OpenAPI document, written by hand: no framework describes bodies that are parsed while they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from car_analyzer import __version__
from car_analyzer.errors import CODES as SDK_CODES

from ._errors import CODES, STOPPING

if TYPE_CHECKING:
    from ._settings import Settings

CONFIDENCE = {"type": "number", "minimum": 0, "maximum": 1, "example": 0.97}

SCHEMAS: dict[str, Any] = {
    "Analysis": {
        "type": "object",
        "description": (
            "For each head of the model, its label under the head's name, and the label's probability under the same "
            "name followed by `Confidence`. These are the two default heads; another model may have others."
        ),
        "required": ["processingTime"],
        "properties": {
            "cleanliness": {"type": "string", "example": "dirty"},
            "cleanlinessConfidence": CONFIDENCE,
            "condition": {"type": "string", "example": "intact"},
            "conditionConfidence": {**CONFIDENCE, "example": 0.88},
            "processingTime": {
                "type": "number",
                "minimum": 0,
                "description": "Milliseconds from sending the photo to Triton to receiving its answer.",
                "example": 41.3,
            },
            "heads": {
                "type": "object",
                "description": "With `detail=full` only: each head's whole answer.",
                "additionalProperties": {"$ref": "#/components/schemas/Head"},
            },
        },
    },
    "Head": {
        "type": "object",
        "required": ["label", "confidence", "probabilities", "logits", "labels"],
        "properties": {
            "label": {"type": "string"},
            "confidence": CONFIDENCE,
            "probabilities": {
                "type": "object",
                "description": "Every label's probability.",
                "additionalProperties": {"type": "number"},
            },
            "logits": {
                "type": "array",
                "description": "The network's output, in the order of the labels.",
                "items": {"type": "number"},
            },
            "labels": {
                "type": ["array", "null"],
                "description": "Multilabel heads only: all labels that apply.",
                "items": {"type": "string"},
            },
        },
    },
    "Error": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {
            "error": {"type": "string", "description": "What was wrong, in a sentence."},
            "code": {
                "type": "string",
                "description": "The same for programs. More codes may be added.",
                "examples": sorted({*SDK_CODES, *CODES.values(), STOPPING}),
            },
        },
    },
    "Unavailable": {
        "type": "object",
        "required": ["status", "error"],
        "properties": {
            "status": {"type": "string", "enum": ["unavailable"]},
            "error": {"type": "string", "example": "not loaded: condition"},
        },
    },
}

HEADERS = {
    "X-Request-ID": {
        "description": "The request's id, as sent or newly created. Logs of the gateway and Triton have it.",
        "schema": {"type": "string"},
    }
}
IDENTITY = {
    "Model-Version": {"description": "The version of the ensemble that answered.", "schema": {"type": "string"}},
    "Export-Id": {"description": "The unique id of the export that answered.", "schema": {"type": "string"}},
    "Exif-Rotation": {
        "description": "Whether all networks saw the photo turned by its EXIF orientation, not as stored.",
        "schema": {"type": "boolean"},
    },
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds until the next attempt.", "schema": {"type": "integer"}}}

ERRORS = {
    "400": "There is no photo, or it cannot be read.",
    "408": "The upload took too long.",
    "413": "A photo is too large, or there are too many.",
    "415": "The body is neither a multipart form nor an image.",
    "500": "A bug in the gateway.",
    "502": "Triton failed on this photo, or its model is unsuitable.",
    "503": "Too busy, shutting down, or Triton is down: try again later.",
    "504": "There was no answer within the timeout.",
}

UNAUTHORIZED = "The token is missing or wrong."


def describe(settings: Settings, *, needs_token: bool) -> dict[str, Any]:
    """Create the document.

    Args:
        settings: The limits.
        needs_token: Whether callers have to send a bearer token.
    """
    protects_all = needs_token and settings.protect == "all"
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "car-analyzer",
            "version": __version__,
            "description": "Classifies photos of cars: clean or dirty, intact or damaged.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/analyze": {"post": _with_token(_analyze(settings), needs=needs_token)},
            "/health": {"get": _with_token(_health(), needs=protects_all)},
            "/metrics": {"get": _with_token(_metrics(), needs=protects_all)},
        },
        "components": {"schemas": SCHEMAS},
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _analyze(settings: Settings) -> dict[str, Any]:
    photo = {"type": "string", "format": "binary"}
    one_or_more = {"type": "array", "items": photo, "minItems": 1, "maxItems": settings.max_photos}
    form = {"type": "object", "required": ["image"], "properties": {"image": one_or_more}}
    analysis = _schema("Analysis")
    several = {"type": "array", "items": {"anyOf": [analysis, _schema("Error")]}}
    errors = {status: _error(text) for status, text in ERRORS.items()}
    errors["503"]["headers"] = {**HEADERS, **RETRY_AFTER}
    return {
        "summary": "Analyse photos",
        "description": (
            f"One photo gives an object; several `image` fields (at most {settings.max_photos}) give a list, with an "
            "error in the place of a photo that cannot be read. A photo is JPEG, HEIC, PNG, WebP, "
            f"BMP, GIF, TIFF or AVIF of at most {settings.max_photo_bytes:,} bytes."
        ),
        "operationId": "analyze",
        "parameters": [
            {
                "name": "X-Request-ID",
                "in": "header",
                "description": "An id for this request; without it, one is created.",
                "schema": {"type": "string", "maxLength": 128, "pattern": "^[A-Za-z0-9._:/+=-]+$"},
            },
            {
                "name": "detail",
                "in": "query",
                "description": "Adds `heads`, with probabilities and logits, and `modelVersion` and `exportId`.",
                "schema": {"type": "string", "enum": ["full"]},
            },
            {
                "name": "timeout",
                "in": "query",
                "description": f"Seconds for an answer, after the upload; at most {settings.timeout:g}, the default.",
                "schema": {"type": "number", "exclusiveMinimum": 0},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": photo},
                "application/octet-stream": {"schema": photo},
            },
        },
        "responses": {
            "200": {
                "description": "The model's answer.",
                "headers": {**HEADERS, **IDENTITY},
                "content": {"application/json": {"schema": {"anyOf": [analysis, several]}}},
            },
            **errors,
        },
    }


def _health() -> dict[str, Any]:
    ok = {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"type": "string", "enum": ["OK"]},
            "description": {"type": "string", "description": "What the models are, if their spec tells."},
            "demo": {"type": "boolean", "description": "True for demo models: do not rely on their answers."},
        },
    }
    return {
        "summary": "Check whether photos can be analysed now",
        "operationId": "health",
        "responses": {
            "200": {
                "description": "Triton and all models are ready.",
                "headers": HEADERS,
                "content": {"application/json": {"schema": ok}},
            },
            "503": {
                "description": "Something is not ready; `error` says what.",
                "headers": HEADERS,
                "content": {"application/json": {"schema": _schema("Unavailable")}},
            },
        },
    }


def _metrics() -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    content = {"text/plain": text, "application/openmetrics-text": text}
    return {
        "summary": "Metrics for Prometheus",
        "operationId": "metrics",
        "responses": {"200": {"description": "The metrics.", "headers": HEADERS, "content": content}},
    }


def _with_token(operation: dict[str, Any], *, needs: bool) -> dict[str, Any]:
    if needs:
        operation["security"] = [{"token": []}]
        operation["responses"]["401"] = _error(UNAUTHORIZED)
    operation["responses"] = dict(sorted(operation["responses"].items()))
    return operation


def _error(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _schema("Error")}}
    return {"description": description, "headers": HEADERS, "content": content}


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
