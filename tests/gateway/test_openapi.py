"""The OpenAPI document and its page, without a running gateway."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from car_analyzer.errors import CODES
from car_analyzer_gateway import _errors
from car_analyzer_gateway._docs import DOCS_POLICY, render_docs
from car_analyzer_gateway._openapi import describe
from car_analyzer_gateway._settings import Settings

DOCUMENT = describe(Settings(collect="photos"), needs_token=False)


def matches(name: str, value: Any) -> bool:
    """Whether a value matches a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema_rs.is_valid(schema, value)


def examples(path: str = "/analyze") -> dict[str, dict[str, Any]]:
    """Status to the values of its examples."""
    responses = DOCUMENT["paths"][path]["post"]["responses"].items()
    bodies = {status: response["content"]["application/json"] for status, response in responses if status != "204"}
    return {status: {name: each["value"] for name, each in body["examples"].items()} for status, body in bodies.items()}


def test_one_photo_gives_an_analysis_and_several_a_list() -> None:
    answer = DOCUMENT["paths"]["/analyze"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Analysis", "Analyses")]}
    for value in examples()["200"].values():
        assert matches("Analyses", value) == isinstance(value, list)
        assert matches("Analysis", value) == isinstance(value, dict)


def test_an_analysis_is_not_an_error() -> None:
    analysis, error = {"condition": "intact", "processingTime": 1.0}, {"error": "Bad.", "code": "photo.empty"}
    assert matches("Analysis", analysis)
    assert not matches("Error", analysis)
    assert matches("Error", error)
    assert not matches("Analysis", error)
    assert not matches("Error", {"error": "Bad.", "code": "photo.unheard_of"})


@pytest.mark.parametrize("value", [["dent"], [], "dent", 0.5])
def test_other_heads_are_labels_or_confidences(value: Any) -> None:
    assert matches("Analysis", {"damage": value, "processingTime": 1.0})
    assert not matches("Analysis", {"damage": {"label": value}, "processingTime": 1.0})


def test_every_code_is_in_the_document() -> None:
    codes = {*CODES, *_errors.CODES.values(), _errors.STOPPING, _errors.UNKNOWN_PHOTO, _errors.INVALID_FEEDBACK}
    assert set(DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"]) == codes


def test_every_error_has_an_example() -> None:
    for status, errors in [*examples().items(), *examples("/feedback").items()]:
        for code, value in errors.items() if status != "200" else ():
            assert value["code"] == code
            assert matches("Error", value)


def test_feedback_is_in_the_document_of_gateways_that_collect() -> None:
    assert "/feedback" not in describe(Settings(), needs_token=False)["paths"]
    assert "/feedback" in render_docs(DOCUMENT)
    body = DOCUMENT["paths"]["/feedback"]["post"]["requestBody"]["content"]["application/json"]
    assert all(matches("Feedback", example["value"]) for example in body["examples"].values())
    assert not matches("Feedback", {"request_id": "a", "labels": {}})
    assert not matches("Feedback", {"labels": {"condition": "intact"}})


def test_the_page_has_a_form_unless_a_token_is_needed() -> None:
    page = render_docs(DOCUMENT)
    assert '<form action="analyze" method="post" enctype="multipart/form-data"' in page
    assert "form-action 'self'" in DOCS_POLICY
    assert "photo.invalid" in page
    assert "<form" not in render_docs(describe(Settings(), needs_token=True))
