"""The parts of a check: labels in paths and CSV files, advice, and the confidence interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from car_analyzer import ConfigurationError
from car_analyzer.heads import HeadSpec
from car_analyzer_export.checking.advice import advise
from car_analyzer_export.checking.alternatives import IMAGENET, Fit, Preprocessing
from car_analyzer_export.checking.explain import explain_mistakes
from car_analyzer_export.checking.hypotheses import judge
from car_analyzer_export.checking.labelled import find_labelled
from car_analyzer_export.checking.tally import interval
from car_analyzer_export.errors import CheckError
from car_analyzer_export.preprocess.view import View

from .labelled_photos import LABELS


@pytest.mark.parametrize(
    ("path", "truth"),
    [
        ("clean/1.jpg", {"cleanliness": "clean"}),
        ("train/Dirty/intact.jpg", {"cleanliness": "dirty"}),
        ("cleanliness/dirty/x.jpg", {"cleanliness": "dirty"}),
        ("dirty_intact/x.jpg", {"cleanliness": "dirty", "condition": "intact"}),
        ("dirty/damaged/x.jpg", {"cleanliness": "dirty", "condition": "damaged"}),
        ("clean/dirty/x.jpg", {"cleanliness": "dirty"}),
        ("dirty-intact-2.jpg", {"cleanliness": "dirty", "condition": "intact"}),
        ("others/dirty_intact_2.jpg", {"cleanliness": "dirty", "condition": "intact"}),
        ("tires/yes/1.jpg", {"tires": "yes"}),
        ("glass_no/1.jpg", {"glass": "no"}),
        ("grade/2/1.jpg", {"grade": "2"}),
        ("yes/1.jpg", None),
        ("not so clean/1.jpg", None),
        ("2_3.jpg", None),
        ("clean/notes.txt", None),
    ],
)
def test_labels_in_paths(path: str, truth: dict[str, str] | None, tmp_path: Path) -> None:
    labels = {**LABELS, "tires": ("no", "yes"), "glass": ("no", "yes"), "grade": ("1", "2")}
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    if truth is None:
        with pytest.raises(CheckError):
            find_labelled(tmp_path, labels)
    else:
        (photo,) = find_labelled(tmp_path, labels).photos
        assert photo.truth == truth


def test_several_labels_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('file;marks\na.jpg;scratch, dent\nb.jpg;none\nc.jpg;\nd.jpg;dent, "rust"\n')
    found = find_labelled(tmp_path / "a.csv", {"marks": ("dent", "scratch", "rust")}, frozenset({"marks"}))
    assert [photo.truth["marks"] for photo in found.photos] == ["dent, scratch", "", "dent, rust"]


def test_several_labels_in_the_name_of_a_folder(tmp_path: Path) -> None:
    labels = {"marks": ("dent", "deep dent", "rust", "++"), "condition": ("intact", "damaged")}
    for path in (
        "marks/rust, dent",
        "marks/none/condition/damaged",
        "marks/deep dent",
        "rust",
        "marks/%2B%2B, rust",
        "none",
    ):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "a.jpg").touch()
    found = {photo.name: photo.truth for photo in find_labelled(tmp_path, labels, frozenset({"marks"})).photos}
    assert found == {
        "marks/rust, dent/a.jpg": {"marks": "dent, rust"},
        "marks/none/condition/damaged/a.jpg": {"marks": "", "condition": "damaged"},
        "marks/deep dent/a.jpg": {"marks": "deep dent"},
        "rust/a.jpg": {"marks": "rust"},
        "marks/%2B%2B, rust/a.jpg": {"marks": "rust, ++"},
        "none/a.jpg": {"marks": ""},
    }


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "file\nx.jpg\n", "file,cleanliness\n", "\0\0"])
def test_useless_csv(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(CheckError):
        find_labelled(tmp_path / "labels.csv", LABELS)


def fits(truths: str, served: str, other: str) -> list[Fit]:
    """Two preprocessings of the same photos; a letter is a label."""
    head = HeadSpec("mud", "mud_logits", ("c", "d"), "softmax", None, "d")
    network: Any = SimpleNamespace(name="mud", heads=[head], combined=frozenset())
    as_served = Preprocessing(View(), "RGB", IMAGENET)
    changed = replace(as_served, channels="BGR")
    return [
        Fit(network, head, one, changes, [a == b for a, b in zip(truths, said, strict=True)], list(truths))
        for one, changes, said in ((as_served, 0, served), (changed, 1, other))
    ]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("threshold", "said"), [(None, False), (0.5, False), (0.3, True)])
def test_advice_keeps_the_label_that_a_threshold_is_about(activation: str, threshold: float | None, said: bool) -> None:
    served, other = fits("cd" * 10, "dc" * 10, "cd" * 10)
    served.head = replace(served.head, activation=activation, threshold=threshold)
    other.head = replace(served.head, labels=("d", "c"))
    found = advise(judge([served, other]))
    assert found is not None
    assert ('write labels = ["d", "c"] and positive = "d"' in found.sentence) == said


@pytest.mark.parametrize(
    ("truths", "served", "other"),
    [
        ("cdcd", "dcdc", "cdcd"),  # too few
        ("cdcdcdcd", "cccccccd", "ccccdcdd"),  # may be chance
        ("dddddddd", "cccccccc", "dddddddd"),  # one label only
        ("dddddddddc", "cccccccccc", "dddddddddd"),  # always the same answer, now the more frequent one
        ("cd" * 50, "cd" * 45 + "dc" * 5, "cd" * 50),  # good enough as it is
    ],
)
def test_no_advice_without_grounds(truths: str, served: str, other: str) -> None:
    assert advise(judge(fits(truths, served, other))) is None


def test_interval() -> None:
    assert interval(10, 10) == pytest.approx((0.722, 1), abs=1e-3)
    assert interval(0, 10) == pytest.approx((0, 0.278), abs=1e-3)
    assert interval(50, 100) == pytest.approx((0.404, 0.596), abs=1e-3)


def test_a_model_without_explanations_leaves_the_report_without_maps() -> None:
    def analyze(_photo: Path, *, explain: bool) -> Any:
        assert explain
        raise ConfigurationError("the model cannot explain its answers", code="model.not_explainable")

    photo = SimpleNamespace(photo=SimpleNamespace(path=Path("car.jpg")))
    mistakes = [SimpleNamespace(answer=photo, head="condition", label="damaged")]
    found, note = explain_mistakes(SimpleNamespace(analyze=analyze), mistakes)  # type: ignore[arg-type]
    assert found == {}
    assert note is not None
    assert note.endswith("has a map of where it comes from: the model cannot explain its answers.")
