from __future__ import annotations

import json
import math
from typing import Any

import pytest

from car_analyzer import Analysis, ConfigurationError, ServerError
from car_analyzer.heads import HeadSpec, Tensor, parse_heads, sigmoid, softmax

SOFTMAX = {"output": "o", "labels": ["clean", "dirty"], "activation": "softmax", "threshold": None}
SIGMOID = {"output": "o", "labels": ["clean", "dirty"], "activation": "sigmoid", "threshold": None}


def spec(**fields: Any) -> HeadSpec:
    return parse_heads(json.dumps({"head": {**SOFTMAX, **fields}}), "m")[0]


def tensor(*values: float) -> Tensor:
    return Tensor((1, len(values)), values)


def test_likeliest_label_is_chosen() -> None:
    head = spec(labels=["a", "b", "c"]).read(tensor(1.0, 3.0, 2.0))
    total = math.e + math.e**2 + math.e**3
    assert head.label == "b"
    assert head.confidence == head.probabilities["b"] == pytest.approx(math.e**3 / total)
    assert list(head.probabilities) == ["a", "b", "c"]
    assert sum(head.probabilities.values()) == pytest.approx(1)
    assert head.logits == (1.0, 3.0, 2.0)


def test_threshold_moves_the_choice_and_confidence_is_the_chosen_ones() -> None:
    logits = tensor(0.0, math.log(0.4 / 0.6))  # 0.6, 0.4
    assert spec().read(logits).label == "clean"
    careful = spec(threshold=0.3).read(logits)
    assert careful.label == "dirty"
    assert careful.confidence == pytest.approx(0.4)
    assert spec(threshold=0.41).read(logits).label == "clean"
    assert spec(threshold=0).read(tensor(9.0, -9.0)).label == "dirty"


@pytest.mark.parametrize(
    ("threshold", "logit", "label"),
    [(None, 0.0, "dirty"), (None, -0.01, "clean"), (0.9, 2.0, "clean"), (0.9, 2.3, "dirty"), (1, 40.0, "dirty")],
)
def test_sigmoid_has_one_logit(threshold: float | None, logit: float, label: str) -> None:
    head = spec(activation="sigmoid", threshold=threshold).read(tensor(logit))
    assert head.label == label
    assert head.confidence == head.probabilities[label]
    assert head.probabilities["dirty"] == pytest.approx(1 / (1 + math.exp(-logit)))
    assert sum(head.probabilities.values()) == pytest.approx(1)


def test_the_positive_label_need_not_be_the_second() -> None:
    logits = tensor(math.log(0.4 / 0.6), 0.0)  # clean 0.4, dirty 0.6
    assert spec(threshold=0.3, positive="clean").read(logits).label == "clean"
    assert spec(threshold=0.41, positive="clean").read(logits).label == "dirty"


@pytest.mark.parametrize(
    ("positive", "probability", "label"),
    [("dirty", 0.41, "unsure"), ("dirty", 0.39, "clean"), ("dirty", 0.71, "dirty"), ("clean", 0.35, "unsure")],
)
def test_between_the_labels_lies_unsure(positive: str, probability: float, label: str) -> None:
    logits = tensor(0.0, math.log(probability / (1 - probability)))
    head = spec(unsure=[0.4, 0.7], positive=positive).read(logits)
    assert head.label == label
    assert head.confidence == pytest.approx(max(probability, 1 - probability))


def test_labels_that_do_not_exclude_each_other_are_all_given() -> None:
    damage = spec(labels=["dent", "scratch", "glass"], activation="multilabel")
    head = damage.read(tensor(2.0, -1.0, 0.0))
    assert head.labels == ("dent", "glass")
    assert head.label == "dent, glass"
    assert head.confidence == 0.5
    assert head.probabilities["scratch"] == pytest.approx(1 / (1 + math.e))
    assert damage.read(tensor(-2.0, -1.0, -3.0)).labels == ()
    assert Analysis({"damage": head}, 1.0).to_dict()["damage"] == ["dent", "glass"]


def test_extreme_logits_do_not_overflow() -> None:
    assert softmax((1e38, -1e38)) == [1, 0]
    assert softmax((-1e38, -1e38)) == [0.5, 0.5]
    assert sigmoid(1e38) == 1
    assert sigmoid(-1e38) == 0
    assert 0 < sigmoid(-700) < 1e-300


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_the_servers_fault(value: float) -> None:
    with pytest.raises(ServerError, match="not finite"):
        spec().read(tensor(0.0, value))


@pytest.mark.parametrize("wrong", [Tensor((1, 3), (0, 0, 0)), Tensor((2, 2), (0,) * 4), Tensor((2,), (0, 0)), None])
def test_other_shapes_are_refused(wrong: Tensor | None) -> None:
    with pytest.raises(ServerError, match="shape|no output"):
        spec().read(wrong)
    with pytest.raises(ServerError, match="shape|no output"):
        spec(activation="sigmoid").read(wrong)


def test_order_is_the_models() -> None:
    heads = parse_heads(json.dumps({"z": SOFTMAX, "a": SIGMOID}), "m")
    assert [head.name for head in heads] == ["z", "a"]


def test_fields_of_later_versions_are_passed_over() -> None:
    assert spec(note="new").labels == ("clean", "dirty")


@pytest.mark.parametrize(
    ("fields", "logits"),
    [
        ({"labels": ["a", "b", "c"]}, (1.0, 3.0, 2.0)),
        ({"threshold": 0.9}, (0.0, 2.0)),
        ({"threshold": 0.1, "positive": "clean"}, (0.0, 2.0)),
        ({"unsure": [0.3, 0.9]}, (0.0, 2.0)),
        ({"activation": "sigmoid"}, (0.5,)),
        ({"labels": ["dent", "scratch"], "activation": "multilabel", "threshold": 0.8}, (2.0, 1.0)),
    ],
)
def test_a_temperature_changes_the_confidence_and_no_label(fields: dict[str, Any], logits: tuple[float, ...]) -> None:
    served = spec(**fields).read(tensor(*logits))
    calibrated = spec(**fields, temperature=4).read(tensor(*logits))
    divided = spec(**{**fields, "threshold": None, "unsure": None}).read(tensor(*(logit / 4 for logit in logits)))
    assert (calibrated.label, calibrated.labels, calibrated.logits) == (served.label, served.labels, logits)
    assert calibrated.probabilities == divided.probabilities
    assert abs(calibrated.confidence - 0.5) < abs(served.confidence - 0.5)
    assert spec(**fields, temperature=1).read(tensor(*logits)) == served


def test_one_logit_has_a_bias_too() -> None:
    head = spec(activation="sigmoid", temperature=2, bias=-1).read(tensor(1.0))
    # The label is that of the logit as it is; its calibrated confidence may be below one half.
    assert (head.label, head.logits) == ("dirty", (1.0,))
    assert head.confidence == pytest.approx(sigmoid(-0.5))


@pytest.mark.parametrize(
    "fields",
    [{"temperature": value} for value in (0, -1, "2", True, None, 1e400, 1e-300)]
    + [{"bias": 1}, {"activation": "sigmoid", "bias": "1"}],
)
def test_a_malformed_calibration_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="temperature|bias"):
        spec(**fields)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "car-analyzer export"),
        ("{", "update car-analyzer"),
        ("[]", "update car-analyzer"),
        ("{}", "update car-analyzer"),
        ('{"head": 1}', "update car-analyzer"),
        ('{"head": {}}', "'output' is missing"),
    ],
)
def test_malformed_descriptions_say_what_to_do(text: str | None, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        parse_heads(text, "m")


@pytest.mark.parametrize(
    "fields",
    [
        {"output": None},
        {"labels": "clean"},
        {"labels": ["clean"]},
        {"labels": ["clean", "clean"]},
        {"labels": ["clean", 1]},
        {"activation": "argmax"},
        {"activation": ["softmax"]},
        {"activation": "sigmoid", "labels": ["a", "b", "c"]},
        {"threshold": 1.5},
        {"threshold": True},
        {"threshold": "0.5"},
        {"threshold": 0.5, "labels": ["a", "b", "c"]},
    ],
)
def test_heads_that_cannot_be_read_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="update car-analyzer"):
        spec(**fields)
