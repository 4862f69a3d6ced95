"""The types of the gateway's answers, as schemas of its OpenAPI document."""

from __future__ import annotations

from typing import Any

from car_analyzer.errors import CODES as SDK_CODES

from ._errors import CODES, INVALID_FEEDBACK, STOPPING, UNKNOWN_PHOTO

CONFIDENCE = {"type": "number", "minimum": 0, "maximum": 1}

LABEL = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
SCHEMAS: dict[str, Any] = {
    "Analysis": {
        "type": "object",
        "description": (
            "For each head of the model, its label under the head's name, and the label's probability under the same "
            "name followed by `Confidence`. Only an analysis has `processingTime`; an error has `error`."
        ),
        "required": ["processingTime"],
        "properties": {
            "cleanliness": {"type": "string", "description": "A default head: `clean` or `dirty`."},
            "cleanlinessConfidence": CONFIDENCE,
            "condition": {"type": "string", "description": "A default head: `intact` or `damaged`."},
            "conditionConfidence": CONFIDENCE,
            "processingTime": {
                "type": "number",
                "minimum": 0,
                "description": "Milliseconds from sending the photo to Triton to receiving its answer.",
            },
            "heads": {"$ref": "#/components/schemas/Heads"},
            "explanations": {"$ref": "#/components/schemas/Explanations"},
            "modelVersion": {"type": "string", "description": "With `detail=full` only: the ensemble's version."},
            "exportId": {"type": "string", "description": "With `detail=full` only: the export's unique id."},
        },
        "additionalProperties": {
            "description": "Other heads: a label, the list of labels of a multilabel head, or a confidence.",
            # A generated type has one index signature for all properties, so it has to admit these.
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "number"},
                {"$ref": "#/components/schemas/Heads"},
                {"$ref": "#/components/schemas/Explanations"},
            ],
        },
    },
    "Heads": {
        "type": "object",
        "description": "With `detail=full` only: each head's whole answer.",
        "additionalProperties": {"$ref": "#/components/schemas/Head"},
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
    "Explanations": {
        "type": "object",
        "description": "With `explain=1` only: where in the photo each head's answer comes from.",
        "additionalProperties": {"$ref": "#/components/schemas/Explanation"},
    },
    "Explanation": {
        "type": "object",
        "description": "The photo here is the upright one, as browsers show it.",
        "required": ["method", "labels", "box", "photo", "overlay"],
        "properties": {
            "method": {
                "type": "string",
                "enum": ["cam", "occlusion"],
                "description": "`cam`: a class activation map; `occlusion`: what changes when parts are covered.",
            },
            "labels": {
                "type": "array",
                "description": "The labels that the map explains: those of the answer.",
                "items": {"type": "string"},
            },
            "box": {
                "type": "object",
                "description": "The part of the photo that `overlay` covers, in pixels of the photo.",
                "required": ["left", "top", "width", "height"],
                "properties": {name: {"type": "number"} for name in ("left", "top", "width", "height")},
            },
            "photo": {
                "type": "object",
                "required": ["width", "height", "orientation"],
                "properties": {
                    "width": {"type": "integer"},
                    "height": {"type": "integer"},
                    "orientation": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": 8,
                        "description": "The EXIF orientation of the file; 1: it is stored upright.",
                    },
                },
            },
            "overlay": {
                "type": "string",
                "description": "A data URL of a transparent PNG, to be stretched over `box`.",
            },
            "maps": {
                "type": "object",
                "description": "With `detail=full` only: the map of each label of the head, row by row, in logits.",
                "additionalProperties": {
                    "type": "array",
                    "items": {"type": "array", "items": {"type": "number"}},
                },
            },
        },
    },
    "Analyses": {
        "type": "array",
        "description": "One entry for each photo, in the order of the form.",
        "minItems": 2,
        "items": {"oneOf": [{"$ref": "#/components/schemas/Analysis"}, {"$ref": "#/components/schemas/Error"}]},
    },
    "Error": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {
            "error": {"type": "string", "description": "What was wrong, in a sentence."},
            "code": {"$ref": "#/components/schemas/ErrorCode"},
        },
    },
    "ErrorCode": {
        "type": "string",
        "description": "The error for programs. Codes do not change; later versions may have more.",
        "enum": sorted({*SDK_CODES, *CODES.values(), STOPPING, UNKNOWN_PHOTO, INVALID_FEEDBACK}),
    },
    "Health": {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"type": "string", "enum": ["OK"]},
            "description": {"type": "string", "description": "What the models are, if their spec tells."},
            "demo": {"type": "boolean", "description": "True for demo models: do not rely on their answers."},
            "feedback": {"type": "boolean", "description": "True if the gateway takes `POST /feedback`."},
        },
    },
    "Choices": {
        "type": "object",
        "required": ["heads"],
        "properties": {
            "heads": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["label", "labels"],
                    "properties": {
                        "label": {**LABEL, "description": "The answer; of a multilabel head, the list of its labels."},
                        "labels": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "What feedback may give.",
                        },
                    },
                },
            }
        },
    },
    "Feedback": {
        "type": "object",
        "required": ["request_id", "labels"],
        "properties": {
            "request_id": {
                "type": "string",
                "minLength": 1,
                "description": "The answer's `X-Request-ID`; from the second photo on with its number: `abc-2`.",
            },
            "labels": {
                "type": "object",
                "description": "Head to its true label; of a multilabel head, to the list of its true labels.",
                "minProperties": 1,
                "additionalProperties": LABEL,
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
