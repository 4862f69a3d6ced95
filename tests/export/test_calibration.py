"""Temperatures, figures and thresholds, on logits that are as overconfident as the test makes them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from car_analyzer import Analysis
from car_analyzer.heads import HeadSpec, parse_heads
from car_analyzer_export.calibration.calibrate import calibrate, calibrate_head, scaled_head
from car_analyzer_export.calibration.figures import decide, measure
from car_analyzer_export.calibration.fit import NoFitError, fit
from car_analyzer_export.calibration.thresholds import Wish, propose
from car_analyzer_export.checking.answers import Answer
from car_analyzer_export.errors import CheckError
from car_analyzer_export.onnx_model.answers import read_answers

PHOTOS = 400
HEADS = {
    "softmax": ("clean", "dirty", "muddy"),
    "sigmoid": ("intact", "damaged"),
    "multilabel": ("dent", "scratch", "glass"),
}


def head(activation: str, **fields: Any) -> HeadSpec:
    described = {"output": "o", "labels": list(HEADS[activation]), "activation": activation, **fields}
    return parse_heads(json.dumps({activation: described}), "m")[0]


def drawn(activation: str, seed: int, scale: float = 4.0, shift: float = 0.0) -> tuple[Any, list[str]]:
    """Logits, and labels drawn with the probabilities that the logits had before they were scaled and shifted."""
    random = np.random.default_rng(seed)
    labels = HEADS[activation]
    logits = random.normal(0, 2, (PHOTOS, 1 if activation == "sigmoid" else len(labels)))
    spec = head(activation)
    if activation == "multilabel":
        shares = [answer.probabilities for answer in read_answers(spec, logits)]
        truths = [", ".join(label for label in labels if random.random() < share[label]) for share in shares]
    else:
        shares = [list(answer.probabilities.values()) for answer in read_answers(spec, logits)]
        truths = [str(random.choice(labels, p=share)) for share in shares]
    return scale * logits + shift, truths


@pytest.mark.parametrize("activation", HEADS)
def test_an_overconfident_head_is_calibrated_and_keeps_its_labels(activation: str) -> None:
    spec = head(activation, threshold=None if activation == "softmax" else 0.3)
    found = calibrate_head(spec, *drawn(activation, 1))
    assert found.helps
    assert found.scaling.temperature == pytest.approx(4, rel=0.25)

    logits, truths = drawn(activation, 2)  # none of these photos was used
    served, calibrated = (read_answers(one, logits) for one in (spec, scaled_head(spec, found.scaling)))
    assert [answer.label for answer in calibrated] == [answer.label for answer in served]
    before, after = (measure(decide(answers, truths)) for answers in (served, calibrated))
    assert after.error < before.error / 2
    assert before.error > before.by_chance[1]
    assert after.accuracy == before.accuracy


def test_one_logit_gets_a_bias() -> None:
    found = fit("sigmoid", *_as_arrays(head("sigmoid"), *drawn("sigmoid", 1, scale=2, shift=6)))
    assert found.temperature == pytest.approx(2, rel=0.25)
    assert found.bias == pytest.approx(-3, rel=0.25)


@pytest.mark.parametrize("activation", HEADS)
def test_a_calibrated_head_stays_as_it_is(activation: str) -> None:
    found = calibrate_head(head(activation), *drawn(activation, 1, scale=1))
    assert not found.helps
    assert found.scaling.temperature == pytest.approx(1, rel=0.25)


def test_a_served_temperature_is_replaced_not_multiplied() -> None:
    logits, truths = drawn("softmax", 1)
    plain = calibrate_head(head("softmax"), logits, truths)
    again = calibrate_head(scaled_head(head("softmax"), plain.scaling), logits, truths)
    assert again.scaling == plain.scaling
    assert not again.helps


def test_photos_that_are_all_right_do_not_make_it_certain() -> None:
    truth = np.eye(2, dtype=bool)[[0, 1] * 50]
    logits = np.where(truth, 5.0, -5.0)
    (answer, *_) = read_answers(replace(head("sigmoid"), **vars(fit("sigmoid", logits[:, 1:], truth))), logits[:, 1:])
    assert 0.95 < answer.confidence < 0.99
    assert fit("softmax", 1e4 + logits / 1e3, truth).temperature == pytest.approx(1 / 398, rel=0.05)


@pytest.mark.parametrize("logits", [[[1.0, -1.0], [-1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_answers_without_a_relation_to_the_labels_cannot_be_calibrated(logits: list[list[float]]) -> None:
    truth = np.eye(2, dtype=bool)[[1, 0] * 50]
    with pytest.raises(NoFitError):
        fit("softmax", np.array(logits * 50), truth)


@pytest.mark.parametrize(
    ("activation", "photos", "sentence"),
    [
        ("softmax", 60, "60 with a label of this head (100 are needed)."),
        ("sigmoid", 110, "10 of 'damaged' (20 are needed)."),
        ("multilabel", 100, "0 without 'dent' (20 are needed)."),
    ],
)
def test_too_few_photos_are_refused(tmp_path: Any, activation: str, photos: int, sentence: str) -> None:
    labels = HEADS[activation]
    truths = {
        "softmax": [*labels] * 20,
        "sigmoid": ["intact"] * 100 + ["damaged"] * 10,
        "multilabel": ["dent"] * 90 + ["dent;scratch;glass"] * 10,
    }[activation]
    assert len(truths) == photos
    file = tmp_path / "labels.csv"
    rows = [f"{number}.jpg,{truth}" for number, truth in enumerate(truths)]
    file.write_text("\n".join([f"file,{activation}", *rows]))
    spec = head(activation)

    def analyze(found: list[Any]) -> list[Answer]:
        answer = read_answers(spec, np.zeros((1, spec.classes)))[0]
        return [Answer(photo, Analysis({activation: answer}, 0.0)) for photo in found]

    with pytest.raises(CheckError) as refused:
        calibrate(file, (spec,), analyze)
    assert sentence in str(refused.value)
    assert "Nothing was published." in str(refused.value)


def test_a_threshold_fulfils_the_wish() -> None:
    logits, truths = drawn("sigmoid", 1)
    spec = head("sigmoid")
    careful = propose(spec, logits, truths, Wish("precision", 0.9))
    assert careful.threshold is not None
    assert careful.unsure is not None
    assert careful.right / careful.chosen >= 0.9
    # The client, given these, is as precise for both labels.
    answers = read_answers(replace(spec, threshold=careful.threshold, unsure=careful.unsure), logits)
    for label in spec.labels:
        given = [truth == label for answer, truth in zip(answers, truths, strict=True) if answer.label == label]
        assert sum(given) / len(given) >= 0.9
    assert sum(answer.label == "unsure" for answer in answers) == careful.in_band

    complete = propose(spec, logits, truths, Wish("recall", 0.95))
    assert complete.threshold is not None
    assert complete.right / complete.positives >= 0.95
    assert complete.threshold < 0.5
    assert complete.unsure == (complete.threshold, 0.5)


def test_a_threshold_is_for_two_labels_and_may_not_exist() -> None:
    assert propose(head("softmax"), *drawn("softmax", 1), Wish("recall", 0.9)).threshold is None
    truths = ["damaged", "intact"] * 10
    assert propose(head("sigmoid"), np.zeros((20, 1)), truths, Wish("precision", 0.9)).threshold is None


def _as_arrays(spec: HeadSpec, logits: Any, truths: list[str]) -> tuple[Any, Any]:
    return logits, np.array([[label == truth for label in spec.labels] for truth in truths])
