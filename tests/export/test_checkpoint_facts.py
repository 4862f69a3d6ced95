"""What a checkpoint says about itself is found, and reconciled with the spec."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from car_analyzer_export.checkpoints import Checkpoint, Facts, read_checkpoint
from car_analyzer_export.errors import CheckpointError, SpecError
from car_analyzer_export.planning.reconcile import reconcile, reconcile_labels

from .checkpoint_files import (
    CLEAN,
    WEIGHTS,
    safetensors,
    saved,
)


def facts_of(folder: Path, **entries: Any) -> Checkpoint:
    return read_checkpoint(saved(folder, {"state_dict": WEIGHTS, **entries}))


@pytest.mark.parametrize(
    "entries",
    [
        {"class_to_idx": {"dirty": 1, "clean": 0}},
        {"idx_to_class": {1: "dirty", 0: "clean"}},
        {"idx_to_class": {"0": "clean", "1": "dirty"}},
        {"classes": ["clean", "dirty"]},
        {"classes": CLEAN},
        {"class_names": ("clean", "dirty")},
        {"labels": np.array(["clean", "dirty"])},
        {"names": {0: " clean ", 1: "dirty"}},
        {"hyper_parameters": {"class_names": ["clean", "dirty"]}},
        {"args": argparse.Namespace(classes=["clean", "dirty"])},
        {"meta": {"dataset": {"id2label": {"0": "clean", "1": "dirty"}}}},
    ],
)
def test_labels_are_found_in_logit_order(entries: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, **entries)
    assert checkpoint.facts.labels == ("clean", "dirty")
    assert checkpoint.facts.sources["labels"].startswith("its checkpoint's '")
    assert not checkpoint.notes


@pytest.mark.parametrize(
    ("entries", "fact", "value", "source"),
    [
        ({"arch": "resnet18"}, "arch", "resnet18", "arch"),
        ({"model": "efficientnet_b0"}, "arch", "efficientnet_b0", "model"),
        ({"hparams": {"backbone": "resnet50.a1_in1k"}}, "arch", "resnet50.a1_in1k", "hparams.backbone"),
        ({"img_size": 224}, "image_size", (224, 224), "img_size"),
        ({"image_size": [240, 320]}, "image_size", (320, 240), "image_size"),
        ({"config": {"input_size": (3, 240, 320)}}, "image_size", (320, 240), "config.input_size"),
        ({"preprocess": {"size": {"height": 240, "width": 320}}}, "image_size", (320, 240), "preprocess.size"),
        ({"mean": [0.5, 0.4, 0.3]}, "mean", (0.5, 0.4, 0.3), "mean"),
        ({"normalize": {"std": np.array([0.5, 0.4, 0.3])}}, "std", (0.5, 0.4, 0.3), "normalize.std"),
        (
            {"transform": {"interpolation": "InterpolationMode.BICUBIC"}},
            "resize_mode",
            "bicubic",
            "transform.interpolation",
        ),
        ({"best_threshold": np.float64(0.25)}, "threshold", 0.25, "best_threshold"),
        ({"positive_class_idx": np.int64(0)}, "positive_index", 0, "positive_class_idx"),
        ({"hparams": {"pos_label": "1"}}, "positive_index", 1, "hparams.pos_label"),
        ({"positive_class": " damaged "}, "positive", "damaged", "positive_class"),
    ],
)
def test_other_facts_are_found(entries: dict[str, Any], fact: str, value: Any, source: str, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **entries).facts
    assert getattr(facts, fact) == value
    assert facts.sources == {fact: f"its checkpoint's '{source}'"}


def test_a_scale_of_255_is_brought_to_1(tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, mean=[127.5, 102, 51], std=[51, 51, 51])
    assert checkpoint.facts.mean == (0.5, 0.4, 0.2)
    assert checkpoint.facts.std == (0.2, 0.2, 0.2)
    assert "were divided by 255" in checkpoint.notes[0]
    assert facts_of(tmp_path, mean=[127.5, 102, 51]).facts.mean is None


@pytest.mark.parametrize(
    "entries",
    [
        {"class_to_idx": {"clean": 0, "dirty": 2}},
        {"class_to_idx": {"clean": 0, "dirty": 0}},
        {"class_to_idx": {"clean": 0.5, "dirty": 1}},
        {"idx_to_class": {"zero": "clean", "one": "dirty"}},
        {"classes": ["clean"]},
        {"classes": [0, 1]},
        {"classes": ["clean", "Clean"]},
        {"classes": ["clean", "\x1b[2J"]},
        {"classes": ["", "dirty"]},
        {"labels": torch.tensor([0, 1, 1]).tolist()},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}},
        {"img_size": -1},
        {"img_size": "large"},
        {"img_size": [1, 2, 3, 4]},
        {"mean": 0.5},
        {"mean": [0.5, float("nan"), 0.5]},
        {"mean": [-0.5, 0.5, 0.5]},
        {"std": [0.2, 0.2, 0]},
        {"std": ["a", "b", "c"]},
        {"threshold": 3},
        {"threshold": "high"},
        {"positive_class": ["damaged"]},
        {"positive_class_idx": -1},
        {"pos_label": True},
        {"pos_label": "\x1b[2J"},
        {"arch": "rm -rf /; "},
    ],
)
def test_garbage_is_ignored_with_a_note(entries: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, **entries)
    assert checkpoint.facts == Facts()
    assert len(checkpoint.notes) == 1
    assert checkpoint.notes[0].startswith(f"Ignored its checkpoint's '{next(iter(entries))}': ")


def test_what_is_no_fact_is_passed_over(tmp_path: Path) -> None:
    checkpoint = facts_of(tmp_path, classes=2, labels="labels.txt", threshold=[0.1, 0.2], interpolation=2)
    assert checkpoint.facts == Facts()
    assert not checkpoint.notes


def test_two_orders_in_one_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="'class_to_idx' says clean, dirty, .*'args.classes' says dirty, clean; cor"
    ):
        facts_of(tmp_path, class_to_idx=CLEAN, args={"classes": ["dirty", "clean"]})


def test_safetensors_metadata_is_read(tmp_path: Path) -> None:
    more = {"mean": "[0.5, 0.5, 0.5]", "arch": "resnet18", "img_size": "96"}
    facts = read_checkpoint(safetensors(tmp_path, class_to_idx=json.dumps(CLEAN), **more)).facts
    assert facts.labels == ("clean", "dirty")
    assert (facts.mean, facts.arch, facts.image_size) == ((0.5, 0.5, 0.5), "resnet18", (96, 96))
    assert facts.sources["labels"] == "its metadata's 'class_to_idx'"
    foreign = read_checkpoint(safetensors(tmp_path, format="tf"))
    assert "written for 'tf'" in foreign.notes[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.json", {"classes": ["clean", "dirty"]}),
        ("model.pth.json", {"class_to_idx": CLEAN}),
        ("model_classes.json", ["clean", "dirty"]),
        ("model.labels.json", {"0": "clean", "1": "dirty"}),
        ("classes.json", ["clean", "dirty"]),
        ("class_to_idx.json", CLEAN),
        ("idx_to_class.json", {"0": "clean", "1": "dirty"}),
        ("labels.json", ["clean", "dirty"]),
        ("config.json", {"id2label": {"0": "clean", "1": "dirty"}}),
    ],
)
def test_labels_are_found_beside_the_file(name: str, content: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    facts = read_checkpoint(saved(tmp_path, WEIGHTS)).facts
    assert facts.labels == ("clean", "dirty")
    assert facts.sources["labels"].startswith(f"{name}'s '")


def test_files_of_a_shared_folder_belong_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(["damaged", "intact"]))
    (tmp_path / "condition_model_classes.json").write_text(json.dumps(["intact", "damaged"]))
    saved(tmp_path, WEIGHTS, "condition_model.pth")
    cleanliness = read_checkpoint(saved(tmp_path, WEIGHTS, "cleanliness_model.pth"))
    assert cleanliness.facts == Facts()
    assert "Ignored classes.json: its folder holds several checkpoints" in cleanliness.notes[0]
    assert read_checkpoint(tmp_path / "condition_model.pth").facts.labels == ("intact", "damaged")


@pytest.mark.parametrize(
    ("beside", "entries", "message"),
    [
        (
            ["dirty", "clean"],
            {"class_to_idx": CLEAN},
            "contradicts itself about labels: its checkpoint's .* model.json's",
        ),
        (
            {"img_size": 256},
            {"img_size": 224},
            "contradicts itself about image size: .* says 224, 224, .* says 256, 256",
        ),
        ({"mean": [0.5, 0.5, 0.5]}, {"mean": [0.485, 0.456, 0.406]}, "contradicts itself about mean"),
        ({"arch": "resnet50"}, {"arch": "vgg16"}, "contradicts itself about arch"),
    ],
)
def test_a_contradiction_with_the_file_beside_is_refused(
    beside: Any, entries: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_text(json.dumps(beside))
    with pytest.raises(CheckpointError, match=message):
        facts_of(tmp_path, **entries)


def test_agreement_is_no_contradiction(tmp_path: Path) -> None:
    beside = {"classes": ["Clean ", "DIRTY"], "arch": "ResNet-18", "mean": [0.4850001, 0.456, 0.406]}
    (tmp_path / "model.json").write_text(json.dumps(beside))
    facts = facts_of(tmp_path, class_to_idx=CLEAN, arch="resnet18", mean=[0.485, 0.456, 0.406]).facts
    assert facts.labels == ("clean", "dirty")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"threshold": NaN}'])
def test_a_broken_file_beside_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the file model\.json beside it is not valid JSON"):
        facts_of(tmp_path)


# --- spec and facts ---------------------------------------------------------------------------------------------------


def facts(**values: Any) -> Facts:
    return Facts(**values, sources=dict.fromkeys(values, "its checkpoint's 'x'"))


def test_the_spec_alone_is_enough() -> None:
    labels = reconcile_labels("tires", Facts(), ["flat", "round"])
    assert (labels.order, labels.source, labels.positive, labels.notes) == (("flat", "round"), "the spec", None, ())
    effective = reconcile("Head 'tires'", Facts(), mean=[0.5] * 3, std=[0.5] * 3, arch="a.py:b")
    assert (effective.mean, effective.std, effective.arch) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "a.py:b")
    assert effective.image_size is None
    assert not effective.notes


def test_the_checkpoint_alone_counts_and_is_named() -> None:
    found = facts(labels=("flat", "round"), image_size=(96, 64), arch="resnet18")
    effective, labels = reconcile("Head 'tires'", found), reconcile_labels("tires", found)
    assert (labels.order, effective.image_size, effective.arch) == (("flat", "round"), (96, 64), "resnet18")
    assert all("its checkpoint's 'x'" in note for note in labels.notes + effective.notes)
    assert len(labels.notes + effective.notes) == 3


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (["clean", "dirty"], ("dirty", "clean")),
        (["Clean", "Dirty "], ("dirty", " clean")),
        (["intact", "damaged"], ("00-damage", "01-whole")),
        (["intact", "damaged"], ("damaged_car", "intact_car")),
        (["clean", "dirty"], ("clean", "dirty", "unknown")),
    ],
)
def test_contradicting_labels_are_rejected(said: list[str], found: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        reconcile_labels("cleanliness", facts(labels=found), said)
    assert f"the spec says labels {', '.join(said)}, but its checkpoint's 'x' says {', '.join(found)}" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("said", "found", "renames"),
    [
        (["clean", "dirty"], ("Clean", " DIRTY "), False),
        (["damaged", "intact"], ("00-damage", "01-whole"), True),
        (["clean", "unclean"], ("clean", "dirty"), True),
        (["sauber", "schmutzig"], ("clean", "dirty"), True),
    ],
)
def test_the_spec_may_rename(said: list[str], found: tuple[str, ...], renames: bool) -> None:
    labels = reconcile_labels("cleanliness", facts(labels=found), said)
    assert labels.order == tuple(said)
    assert bool(labels.notes) == renames
    if renames:
        assert f"'{found[1]}' is called '{said[1]}'" in labels.notes[0]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"mean": [0.5, 0.5, 0.5]}, {"mean": (0.485, 0.456, 0.406)}),
        ({"std": [0.5, 0.5, 0.5]}, {"std": (0.229, 0.224, 0.225)}),
        ({"image_size": (224, 224)}, {"image_size": (256, 256)}),
        ({"arch": "resnet50"}, {"arch": "resnet18"}),
    ],
)
def test_other_contradictions_are_rejected(said: dict[str, Any], found: dict[str, Any]) -> None:
    name = next(iter(said)).replace("_", " ")
    with pytest.raises(
        SpecError, match=rf"Head 'condition': the spec says {name} .*, but its checkpoint's 'x' says .*; cor"
    ):
        reconcile("Head 'condition'", facts(**found), **said)


def test_a_factory_contradicts_nothing() -> None:
    effective = reconcile("Head 'condition'", facts(arch="resnet18"), arch="network.py:build")
    assert effective.arch == "network.py:build"


def test_the_well_known_heads_have_labels_and_a_warning() -> None:
    condition = reconcile_labels("condition", Facts())
    assert condition.order == ("intact", "damaged")
    assert "gives damaged, intact, the other way round. Run `car-analyzer check FOLDER`" in condition.notes[0]
    cleanliness = reconcile_labels("cleanliness", Facts())
    assert cleanliness.order == ("clean", "dirty")
    assert "gives clean, dirty too. Run `car-analyzer check FOLDER`" in cleanliness.notes[0]


def test_any_other_head_needs_labels() -> None:
    with pytest.raises(
        SpecError, match="Head 'tires' has no labels, and its checkpoint names none; list them in the spec"
    ):
        reconcile_labels("tires", Facts())


def test_swapped_checkpoints_are_noticed() -> None:
    with pytest.raises(SpecError, match="as 'condition' would; are the two checkpoints swapped"):
        reconcile_labels("cleanliness", facts(labels=("Damaged", "Intact")))


# --- which class is the positive one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"positive_class_idx": 0},
        {"positive_class_index": 0},
        {"positive_idx": "0"},
        {"positive_class": 0},
        {"positive_class": "Damaged"},
        {"pos_label": 0, "positive_class": "damaged"},
    ],
)
def test_the_positive_class_is_found_by_name_or_position(said: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(said))
    checkpoint = facts_of(tmp_path, classes=["damaged", "intact"])
    assert (checkpoint.facts.positive, checkpoint.facts.positive_index) == ("damaged", None)
    assert not checkpoint.notes
    one_logit = reconcile_labels("condition", checkpoint.facts, one_logit=True)
    assert (one_logit.order, one_logit.positive) == (("intact", "damaged"), "damaged")
    assert one_logit.source.startswith("its checkpoint's 'classes' and model.json's 'pos")
    two_logits = reconcile_labels("condition", checkpoint.facts)
    assert (two_logits.order, two_logits.positive) == (("damaged", "intact"), "damaged")


@pytest.mark.parametrize(
    "said",
    [
        {"positive_class": "dented"},
        {"positive_class_idx": 2},
        {"positive_class": "intact", "positive_class_idx": 0},
        {"positive_class": "intact", "pos_label": "damaged"},
    ],
)
def test_a_positive_class_that_cannot_be_is_refused(said: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="contradicts itself.*; correct "):
        facts_of(tmp_path, classes=["damaged", "intact"], **said)


def test_a_positive_class_is_of_two(tmp_path: Path) -> None:
    found = facts_of(tmp_path, classes=["good", "worn", "flat"], positive_class_idx=1).facts
    assert (found.positive, found.positive_index) == (None, None)


def test_the_labels_of_one_logit_are_compared_after_that() -> None:
    found = facts(labels=("damaged", "intact"), positive="damaged")
    assert reconcile_labels("condition", found, ["intact", "damaged"], one_logit=True).positive == "damaged"
    with pytest.raises(SpecError, match="the spec says labels damaged, intact, but .* says intact, damaged"):
        reconcile_labels("condition", found, ["damaged", "intact"], one_logit=True)
    renamed = reconcile_labels("condition", found, ["ok", "broken"], one_logit=True)
    assert (renamed.order, renamed.positive) == (("ok", "broken"), "broken")
    renamed = reconcile_labels("condition", found, ["broken", "ok"])
    assert (renamed.order, renamed.positive) == (("broken", "ok"), "broken")


def test_a_positive_class_without_classes() -> None:
    by_name = facts(positive="intact")
    assert reconcile_labels("condition", by_name).positive == "intact"
    one_logit = reconcile_labels("condition", by_name, one_logit=True)
    assert (one_logit.order, one_logit.source, one_logit.notes) == (("damaged", "intact"), "its checkpoint's 'x'", ())
    with pytest.raises(SpecError, match="the second label, damaged in the spec, but its checkpoint's 'x' says intact"):
        reconcile_labels("condition", by_name, ["intact", "damaged"], one_logit=True)
    assert "is not a label of head 'tires'" in reconcile_labels("tires", by_name, ["flat", "round"]).notes[0]
    by_position = facts(positive_index=0)
    assert reconcile_labels("tires", by_position, ["flat", "round"]).positive == "flat"
    one_logit = reconcile_labels("tires", by_position, ["flat", "round"], one_logit=True)
    assert (one_logit.order, one_logit.positive) == (("flat", "round"), None)
    assert (
        "nothing says which class that is; the one logit's sigmoid is read as the probability of 'round'"
        in one_logit.notes[0]
    )
