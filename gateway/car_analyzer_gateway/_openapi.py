"""The OpenAPI document, written by hand: no framework describes bodies that are parsed while they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from car_analyzer import __version__

from ._examples import ANSWERS, CHOICES, CHOICES_ERRORS, ERRORS, FEEDBACK, FEEDBACK_ERRORS
from ._schemas import SCHEMAS

if TYPE_CHECKING:
    from ._examples import Errors
    from ._settings import Settings


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
    if settings.collect is not None:
        document["paths"]["/feedback"] = {
            "get": _with_token(_choices(), needs=needs_token),
            "post": _with_token(_feedback(), needs=needs_token),
        }
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _analyze(settings: Settings) -> dict[str, Any]:
    photo = {"type": "string", "format": "binary"}
    one_or_more = {"type": "array", "items": photo, "minItems": 1, "maxItems": settings.max_photos}
    form = {"type": "object", "required": ["image"], "properties": {"image": one_or_more}}
    one_or_several = {"oneOf": [_schema("Analysis"), _schema("Analyses")]}
    errors = {status: _error(status) for status in ERRORS if status != "401"}
    errors["503"]["headers"] = {**HEADERS, **RETRY_AFTER}
    return {
        "summary": "Analyse photos",
        "description": (
            "One photo gives an `Analysis`; several `image` fields "
            f"(at most {settings.max_photos}) give `Analyses`, a list with an error in the place of a photo that "
            "cannot be read. A photo is JPEG, HEIC, PNG, WebP, BMP, GIF, TIFF or AVIF of at most "
            f"{settings.max_photo_bytes:,} bytes."
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
                "name": "explain",
                "in": "query",
                "description": "Adds `explanations`: where answers come from in the photo; up to 65 times as long.",
                "schema": {"type": "string", "enum": ["1"]},
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
                "description": "The model's answer: an object for one photo, a list for several.",
                "headers": {**HEADERS, **IDENTITY},
                "content": {"application/json": {"schema": one_or_several, "examples": ANSWERS}},
            },
            **errors,
        },
    }


def _choices() -> dict[str, Any]:
    errors = {status: _error(status, CHOICES_ERRORS) for status in CHOICES_ERRORS}
    parameter = {"name": "request_id", "in": "query", "required": True, "schema": {"type": "string", "minLength": 1}}
    content = {"application/json": {"schema": _schema("Choices"), "example": CHOICES}}
    return {
        "summary": "What feedback can say about a photo",
        "description": "Each head's answer for a photo that was analysed a short while ago, and all its labels.",
        "operationId": "feedbackChoices",
        "parameters": [parameter],
        "responses": {"200": {"description": "The labels.", "headers": HEADERS, "content": content}, **errors},
    }


def _feedback() -> dict[str, Any]:
    errors = {status: _error(status, FEEDBACK_ERRORS) for status in FEEDBACK_ERRORS}
    errors["503"]["headers"] = {**HEADERS, **RETRY_AFTER}
    return {
        "summary": "Tell what is true of a photo",
        "description": (
            "The labels that a person gives for a photo that was analysed a short while ago, for one or more heads. "
            "Later feedback replaces earlier."
        ),
        "operationId": "feedback",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema("Feedback"), "examples": FEEDBACK}},
        },
        "responses": {"204": {"description": "The feedback was accepted.", "headers": HEADERS}, **errors},
    }


def _health() -> dict[str, Any]:
    return {
        "summary": "Check whether photos can be analysed now",
        "operationId": "health",
        "responses": {
            "200": {
                "description": "Triton and all models are ready.",
                "headers": HEADERS,
                "content": {"application/json": {"schema": _schema("Health")}},
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
        operation["responses"]["401"] = _error("401")
    operation["responses"] = dict(sorted(operation["responses"].items()))
    return operation


def _error(status: str, errors: Errors = ERRORS) -> dict[str, Any]:
    description, sentences = errors[status]
    examples = {code: {"value": {"error": sentence, "code": code}} for code, sentence in sentences.items()}
    content = {"application/json": {"schema": _schema("Error"), "examples": examples}}
    return {"description": description, "headers": HEADERS, "content": content}


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
