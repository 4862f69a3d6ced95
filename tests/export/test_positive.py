"""`positive` says which label a threshold is about; whose probability the sigmoid of one logit is, it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from car_analyzer_export.errors import SpecError
from car_analyzer_export.onnx_model.answers import read_answers
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import HeadPlan, Spec
from tests.conftest import decided

from . import zoo


def plan_condition(folder: Path, classes: int, beside: dict[str, Any], **spec: Any) -> tuple[HeadPlan, str]:
    """The head `condition` of a network with so many logits, and all notes."""
    torch.save(zoo.seeded(lambda: zoo.Small(classes), 1).state_dict(), folder / "condition.pth")
    (folder / "condition.json").write_text(json.dumps(beside))
    network = {"architecture": f"{zoo.__file__}:Small", "kwargs": {"classes": classes}}
    head = {"weights": folder / "condition.pth", **network, **spec}
    plan = plan_export(decided(Spec.from_values({"photo_size": 32, "heads": {"condition": head}}, "test")))
    ((planned, where),) = plan.heads()
    return planned, " ".join(where.notes)


def label_at(head: HeadPlan, damaged: float) -> str:
    """What a client says where the network gives such a probability of damage."""
    logit = np.log(damaged / (1 - damaged))
    row = [logit] if head.logits == 1 else [logit if label == "damaged" else 0 for label in head.labels]
    (answer,) = read_answers(head, np.array([row], np.float32))
    assert answer.probabilities["damaged"] == pytest.approx(damaged, abs=1e-6)
    return answer.label


@pytest.mark.parametrize("classes", [1, 2])
def test_a_threshold_is_about_the_positive_label(classes: int, tmp_path: Path) -> None:
    labels = {"labels": ["intact", "damaged"]}
    head, _ = plan_condition(tmp_path, classes, {}, **labels, threshold=0.8)
    assert (head.labels, head.positive) == (("intact", "damaged"), None)
    assert [label_at(head, damaged) for damaged in (0.1, 0.3, 0.7, 0.9)] == ["intact", "intact", "intact", "damaged"]
    head, _ = plan_condition(tmp_path, classes, {}, **labels, threshold=0.8, positive="intact")
    assert (head.labels, head.positive) == (("intact", "damaged"), "intact")
    assert [label_at(head, damaged) for damaged in (0.1, 0.3, 0.7, 0.9)] == ["intact", "damaged", "damaged", "damaged"]
    head, _ = plan_condition(tmp_path, classes, {}, **labels, unsure=[0.2, 0.6], positive="intact")
    assert [label_at(head, damaged) for damaged in (0.1, 0.3, 0.5, 0.7, 0.9)] == [
        *("intact", "intact", "unsure", "unsure", "damaged")
    ]


@pytest.mark.parametrize("spec", [{}, {"labels": ["intact", "damaged"]}, {"activation": "sigmoid"}])
def test_the_class_of_one_logit_is_the_checkpoints_positive_one(spec: dict[str, Any], tmp_path: Path) -> None:
    beside = {"class_to_idx": {"damaged": 0, "intact": 1}, "positive_class_idx": 0, "threshold": 0.3}
    head, notes = plan_condition(tmp_path, 1, beside, **spec)
    assert (head.labels, head.positive) == (("intact", "damaged"), None)
    assert [label_at(head, damaged) for damaged in (0.2, 0.4)] == ["intact", "damaged"]
    by = "the spec" if "labels" in spec else "condition.json's 'class_to_idx' and condition.json's 'positive_class_idx'"
    assert f"the network gives one logit; its sigmoid is read as that of 'damaged' (by {by})." in notes
    with pytest.raises(SpecError, match="the spec says labels damaged, intact, but .* says intact, damaged"):
        plan_condition(tmp_path, 1, beside, labels=["damaged", "intact"])


def test_without_a_positive_class_one_logit_is_that_of_the_second(tmp_path: Path) -> None:
    head, notes = plan_condition(tmp_path, 1, {"classes": ["damaged", "intact"]})
    assert head.labels == ("damaged", "intact")
    assert "its sigmoid is read as that of 'intact'" in notes
    head, notes = plan_condition(tmp_path, 1, {})
    assert "its sigmoid is read as that of 'damaged' (by default)" in notes
    head, notes = plan_condition(tmp_path, 1, {"positive_class": "intact"})
    assert head.labels == ("damaged", "intact")
    assert "neither the spec nor the checkpoint says" not in notes


def test_the_threshold_of_two_logits_is_about_the_checkpoints_positive_class(tmp_path: Path) -> None:
    beside = {"classes": ["damaged", "intact"], "positive_class_idx": 0, "threshold": 0.3}
    head, notes = plan_condition(tmp_path, 2, beside)
    assert (head.labels, head.positive, head.threshold) == (("damaged", "intact"), "damaged", 0.3)
    assert "the threshold applies to 'damaged' (by condition.json's 'positive_class_idx')" in notes
    assert [label_at(head, damaged) for damaged in (0.2, 0.4)] == ["intact", "damaged"]
    # A threshold of the spec's own can be about either.
    head, _ = plan_condition(tmp_path, 2, beside, threshold=0.6, positive="intact")
    assert [label_at(head, damaged) for damaged in (0.3, 0.5)] == ["intact", "damaged"]
    with pytest.raises(
        SpecError, match=r"says positive intact, but .*'positive_class_idx' says that the checkpoint's threshold"
    ):
        plan_condition(tmp_path, 2, beside, positive="intact")


def test_positive_must_be_a_label_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has the labels \['damaged', 'intact'\], and positive 'broken' is none of"):
        plan_condition(tmp_path, 2, {"classes": ["damaged", "intact"]}, positive="broken", threshold=0.4)
