from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from car_analyzer import (
    Analysis,
    CarAnalyzerError,
    ConfigurationError,
    DeadlineExceededError,
    Failure,
    Head,
    Health,
    ModelNotReadyError,
    OverloadedError,
    PhotoError,
    ServerError,
    ServiceError,
    UnreachableError,
)
from car_analyzer.errors import CODES
from car_analyzer_gateway import _errors as gateway_errors

DIRTY = Head("dirty", 0.971249, {"clean": 0.028751, "dirty": 0.971249}, (-1.5, 2.0))
INTACT = Head("intact", 0.88, {"intact": 0.88, "damaged": 0.12}, (2.0, 0.0))
ANALYSIS = Analysis({"cleanliness": DIRTY, "condition": INTACT}, 41.2512)


def test_heads_are_attributes() -> None:
    assert ANALYSIS.cleanliness is DIRTY
    assert ANALYSIS.condition.label == "intact"
    assert {"cleanliness", "condition", "to_dict"} <= set(dir(ANALYSIS))
    with pytest.raises(AttributeError, match="'colour'.*cleanliness, condition"):
        _ = ANALYSIS.colour


def test_heads_are_items() -> None:
    assert ANALYSIS["condition"] is INTACT
    assert "condition" in ANALYSIS
    assert "colour" not in ANALYSIS
    assert list(ANALYSIS) == ["cleanliness", "condition"]
    with pytest.raises(KeyError, match="'colour'.*cleanliness, condition"):
        _ = ANALYSIS["colour"]


def test_heads_of_other_models_are_attributes_too() -> None:
    other = Analysis({"brand": DIRTY}, 1.0)
    assert getattr(other, "brand") is other["brand"] is DIRTY  # noqa: B009 - as a program writes other.brand
    assert not hasattr(other, "cleanliness")


def test_json_has_the_keys_promised_and_no_others() -> None:
    assert list(ANALYSIS.to_dict().items()) == [
        ("cleanliness", "dirty"),
        ("cleanlinessConfidence", 0.9712),
        ("condition", "intact"),
        ("conditionConfidence", 0.88),
        ("processingTime", 41.3),
    ]
    assert dataclasses.replace(ANALYSIS, version="3").to_dict(with_model=True) == {
        **ANALYSIS.to_dict(),
        "modelVersion": "3",
    }
    assert Failure(PhotoError("no photo")).to_dict() == {"error": "no photo", "code": "photo.invalid"}
    assert Health("grpc://t:1", ready=True, models={"m": True}).to_dict() == {
        "status": "OK",
        "url": "grpc://t:1",
        "models": {"m": True},
    }
    assert Health("grpc://t:1", ready=False, message="gone").to_dict() == {
        "status": "unavailable",
        "url": "grpc://t:1",
        "models": {},
        "message": "gone",
    }


@pytest.mark.parametrize("value", [ANALYSIS, DIRTY, Health("grpc://t:1", ready=True)])
def test_results_are_frozen_and_can_be_copied(value: Any) -> None:
    for twin in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert twin == value
    for name in ("heads", "label", "ready"):
        if hasattr(value, name):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, name, None)


def test_failures_can_be_copied() -> None:
    failure = Failure(UnreachableError("nobody", code="service.failed"))
    for twin in (copy.deepcopy(failure), pickle.loads(pickle.dumps(failure))):
        assert type(twin.error) is UnreachableError
        assert str(twin.error) == "nobody"
        assert twin.error.code == "service.failed"
        assert not twin.ok


def test_ok_tells_them_apart() -> None:
    results: list[Analysis | Failure] = [ANALYSIS, Failure(PhotoError("x"))]
    assert [result.cleanliness.label if result.ok else str(result.error) for result in results] == ["dirty", "x"]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (PhotoError, ValueError),
        (ConfigurationError, ValueError),
        (UnreachableError, ConnectionError),
        (DeadlineExceededError, TimeoutError),
        (OverloadedError, ServiceError),
        (ModelNotReadyError, ServiceError),
        (ServerError, ServiceError),
    ],
)
def test_errors_are_one_tree_and_familiar(error: type[CarAnalyzerError], builtin: type[Exception]) -> None:
    assert issubclass(error, CarAnalyzerError)
    assert issubclass(error, builtin)
    assert str(error("a sentence")) == "a sentence"
    assert error("a sentence").code in CODES


def test_codes_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)
    assert rows[: len(CODES)] == list(CODES)
    assert sorted(rows[len(CODES) :]) == sorted(
        {
            *gateway_errors.CODES.values(),
            gateway_errors.STOPPING,
            gateway_errors.UNKNOWN_PHOTO,
            gateway_errors.INVALID_FEEDBACK,
        }
        - set(CODES)
    )


def test_every_code_in_the_source_is_documented() -> None:
    sources = (Path(__file__).parents[2] / "client").rglob("*.py")
    used = {code for source in sources for code in re.findall(r'code="([a-z_.]+)"', source.read_text())}
    assert used <= set(CODES)
