"""A spec is checked in full before anything is done, and says which key is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from car_analyzer_export.errors import SpecError
from car_analyzer_export.spec import Spec

HEAD = {"weights": "a.pth", "architecture": "network.py:build", "labels": ["clean", "dirty"]}


def spec(**changes: Any) -> Spec:
    return Spec.from_values({"heads": {"cleanliness": HEAD}} | changes, "spec")


def head(**changes: Any) -> Spec:
    return spec(heads={"cleanliness": HEAD | changes})


def test_relative_paths_start_at_the_spec(tmp_path: Path) -> None:
    file = tmp_path / "cars.toml"
    file.write_text(
        'photos = "photos"\nphoto_size = [320, 240]\n[heads.cleanliness]\nweights = "a.pth"\n'
        'architecture = "network.py:build"\n'
        '[heads.condition]\nweights = "/models/b.pth"\narchitecture = "my.module:build"\n'
    )
    found = Spec.from_file(file)
    assert found.photos == tmp_path / "photos"
    assert found.networks["cleanliness"].weights == tmp_path / "a.pth"
    assert found.networks["cleanliness"].architecture == f"{tmp_path}/network.py:build"
    assert found.networks["condition"].weights == Path("/models/b.pth")
    assert found.networks["condition"].architecture == "my.module:build"
    assert found.photo_size == (320, 240)
    assert list(found.heads) == ["cleanliness", "condition"]


def test_one_number_is_a_square() -> None:
    assert spec(photo_size=96).photo_size == (96, 96)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: spec(heads={}), "heads"),
        (lambda: spec(photo_sise=224), "photo_sise"),
        (lambda: spec(photo_size=0), "photo_size"),
        (lambda: spec(photo_size=[224]), "photo_size"),
        (lambda: spec(limits={"max_bytes": 0}), "limits.max_bytes"),
        (lambda: spec(target="tpu"), "target"),
        (lambda: spec(description="two\nlines"), "description"),
        (lambda: spec(demo="perhaps"), "demo"),
        (lambda: spec(accelerator="rocm"), "accelerator"),
        (lambda: spec(preprocess="opencv"), "preprocess"),
        (lambda: spec(limits={"preprocess_instances": -1}), "preprocess_instances"),
        (lambda: spec(limits={"max_queue": 5}), "limits.max_queue"),
        (lambda: spec(heads={"cleanliness": "a.pth"}), "heads.cleanliness"),
        (lambda: head(channels="BRG"), "heads.cleanliness.channels"),
        (lambda: head(interpolation="lanczos"), "heads.cleanliness.interpolation"),
        (lambda: head(photo_size=224, shortest_edge=200), "shortest_edge 200 is smaller"),
        (lambda: head(normalize=False, mean=[0, 0, 0]), "normalize"),
        (lambda: head(sha256="abc"), "heads.cleanliness.sha256"),
        (lambda: head(threshold=1.5), "heads.cleanliness.threshold"),
        (lambda: head(unsure=[0.6, 0.4]), "unsure must be [lower, higher]"),
        (lambda: head(unsure=[0.6, 0.8]), "threshold 0.5 is not within unsure"),
        (lambda: head(labels=["unsure", "clean"]), "unsure"),
        (lambda: head(positive="filthy"), "positive 'filthy' is not one of the labels"),
        (lambda: head(activation="multilabel", unsure=[0.4, 0.6]), "multilabel"),
        (lambda: head(network="other"), "heads.cleanliness.weights"),
        (lambda: spec(heads={"cleanliness": {"network": "other"}}), "no such network"),
        (lambda: spec(networks={"other": {"weights": "a.pth"}}), "no head reads the network 'other'"),
        (lambda: spec(networks={"cleanliness": {"weights": "a.pth"}}), "a table in [heads] and in [networks]"),
        (lambda: spec(heads={"Tires": HEAD}), "Tires"),
        (lambda: spec(heads={"../up": HEAD}), "../up"),
        (lambda: spec(heads={"preprocess": HEAD}), "preprocess"),
        (lambda: spec(heads={"car_analyzer": HEAD}), "car_analyzer"),
        (lambda: spec(heads={"car_analyzer_explain": HEAD}), "car_analyzer_explain"),
        (lambda: head(weight="b.pth"), "heads.cleanliness.weight"),
        (lambda: head(labels=[]), "heads.cleanliness.labels"),
        (lambda: head(labels=["clean", "clean"]), "heads.cleanliness.labels"),
        (lambda: head(labels=["clean", "dir\nty"]), "heads.cleanliness.labels"),
        (lambda: head(labels=["clean", ""]), "heads.cleanliness.labels"),
        (lambda: head(mean=[123.7, 116.3, 103.5]), "heads.cleanliness.mean"),
        (lambda: head(mean=[0.5]), "heads.cleanliness.mean"),
        (lambda: head(std=[0.2, 0.2, 0]), "heads.cleanliness.std"),
        (lambda: head(std=["a", "b", "c"]), "heads.cleanliness.std"),
    ],
)
def test_a_wrong_value_is_named(make: Any, key: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert key in str(caught.value)
    assert str(caught.value).startswith("spec: ")


def test_a_missing_or_malformed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nowhere.toml: No such file"):
        Spec.from_file(tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("heads = [")
    with pytest.raises(SpecError, match="broken.toml: not valid TOML"):
        Spec.from_file(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="broken.toml: not valid TOML"):
        Spec.from_file(broken)
