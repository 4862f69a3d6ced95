"""A check proposes only what its photos support: one change at a time, label orders first."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from car_analyzer.heads import HeadSpec
from car_analyzer_export.checking.advice import advise
from car_analyzer_export.checking.alternatives import IMAGENET, Fit, Preprocessing
from car_analyzer_export.checking.hypotheses import judge
from car_analyzer_export.checking.planned import check_plan
from car_analyzer_export.checking.report import write_report
from car_analyzer_export.checking.support import paired_interval
from car_analyzer_export.checking.text import as_text
from car_analyzer_export.planning import plan_export
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from car_analyzer_export.checking.outcome import Outcome

NETWORKS = """
import torch


class Bright(torch.nn.Module):
    '''Tells whether a picture is brighter than the mean in training.'''

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def measure(self, images):
        return images.mean((1, 2, 3))

    def forward(self, images):
        found = 20 * self.measure(images) * self.weight
        return torch.stack((-found, found), 1)


class Above(Bright):
    '''Tells whether the upper half is brighter.'''

    def measure(self, images):
        height = images.shape[2] // 2
        return images[:, :, :height].mean((1, 2, 3)) - images[:, :, height:].mean((1, 2, 3))
"""
SWAPPED = {"labels": ["bright", "dark"]}
BARE = {"normalize": False}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
# Of 255. With ImageNet's mean, the middle is bright; with a mean of 0.5, it is dark.
DARK, MIDDLE, BRIGHT = 60, 121, 190


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder for photos in sub-folders named by label."""
    for label in ("dark", "bright"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    return tmp_path / "photos"


@pytest.fixture
def check_photos(tmp_path: Path, photos: Path) -> Callable[..., Outcome]:
    """Checks a network on the folder."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pth")

    def call(factory: str = "Bright", **settings: Any) -> Outcome:
        head = {
            "weights": tmp_path / "weights.pth",
            "architecture": f"networks.py:{factory}",
            "labels": ["dark", "bright"],
            "decoding": "exact",
            "resampling": "exact",
        }
        spec = Spec.from_values({"heads": {"light": head | settings}, "photo_size": 32}, "test", tmp_path)
        return check_plan(plan_export(spec), photos, minimum=1.0)[0]

    return call


@pytest.fixture
def check(photos: Path, check_photos: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Checks a network on grey photos: for each label, how many there are of each brightness."""

    def call(dark: dict[int, int], bright: dict[int, int], **settings: Any) -> Outcome:
        for label, counts in (("dark", dark), ("bright", bright)):
            # Mixed, so that each fold has photos of all kinds.
            values = [value for value, count in counts.items() for _ in range(count)]
            for number, value in enumerate(np.random.default_rng(0).permutation(values)):
                Image.new("L", (32, 32), int(value)).save(photos / label / f"{number:02}.png")
        return check_photos(**settings)

    return call


def test_swapped_labels_are_all_that_is_proposed(check: Any, tmp_path: Path) -> None:
    # A mean of 0.5 would correct five more photos, which is chance.
    outcome = check({DARK: 14, MIDDLE: 5}, {BRIGHT: 19}, **SWAPPED)
    (advice,) = outcome.advice
    assert advice.changes == (("[heads.light]", 'write labels = ["dark", "bright"]'),)
    assert (advice.photos, advice.right_now, advice.right_then, advice.also) == (38, 5, 33, ())
    ((_, support),) = advice.support
    assert (support.won, support.lost, support.folds, support.folds_won) == (33, 5, 5, 5)
    assert "mean" not in advice.sentence
    (note,) = (note for note in outcome.notes if "too few" in note)
    assert (
        "light: 38 photos are too few to tell whether, in addition, the network was trained with the mean = [0.5, 0.5,"
        in note
    )
    assert "it corrects 5 and spoils 0 (95% interval of the gain: -" in note

    assert "it wins 5 of 5 held-out folds" in " ".join(as_text(outcome).split())
    facts = outcome.to_dict()
    assert facts["warnings"][0]["support"][0].items() >= {"photos": 38, "won": 33, "lost": 5, "foldsWon": 5}.items()
    assert [one["supported"] for one in facts["readings"]["light"][1:]].count(True) == 1
    assert facts["readings"]["light"][1]["supported"]  # label orders come first
    write_report(outcome, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "held-out folds won" in page
    assert "<td>33 / 5</td>" in page


def test_a_wrong_normalisation_is_proposed_with_enough_photos(check: Any) -> None:
    outcome = check({DARK: 20}, {BRIGHT: 10, MIDDLE: 10}, **BARE)
    (advice,) = outcome.advice
    assert "write mean = [0.485, 0.456, 0.406]" in advice.changes[0][1]
    assert (len(advice.changes), advice.right_now, advice.right_then, advice.also) == (1, 20, 40, ())
    assert not any("too few" in note for note in outcome.notes)


def test_it_is_not_proposed_with_few(check: Any) -> None:
    outcome = check({DARK: 4}, {BRIGHT: 4}, **BARE)
    assert not outcome.advice
    (note,) = (note for note in outcome.notes if "too few" in note)
    assert note.startswith("light: 8 photos are too few to tell whether the network was trained with the mean")
    assert "No other preprocessing fits clearly better." in outcome.notes


def test_the_fewest_photos_are_not_judged(check: Any, tmp_path: Path) -> None:
    outcome = check({DARK: 2}, {BRIGHT: 2}, **SWAPPED)
    assert not outcome.advice
    assert "light: 4 photos are too few to try other preprocessing; 5 are needed." in outcome.notes
    assert "No other preprocessing fits clearly better." not in outcome.notes
    assert {one["support"] for one in outcome.to_dict()["readings"]["light"][1:]} == {None}
    write_report(outcome, tmp_path / "report.html")
    assert "too few photos, or one label only" in (tmp_path / "report.html").read_text()


def test_what_the_photos_cannot_tell_apart_is_named(check: Any) -> None:
    (advice,) = check({DARK: 20}, {BRIGHT: 20}, **BARE).advice
    assert "These photos cannot exclude that the network was trained with the mean = [0.5, 0.5, 0.5]" in advice.sentence


@pytest.mark.parametrize("normalisation", [BARE, HALF])
def test_labels_come_first_where_both_are_wrong(check: Any, normalisation: dict[str, Any]) -> None:
    outcome = check({DARK: 30}, {BRIGHT: 15, MIDDLE: 15}, **SWAPPED, **normalisation)
    (advice,) = outcome.advice
    assert [change.partition(" = ")[0] for _, change in advice.changes] == ["write labels", "write mean"]
    assert [cause.split()[1] for cause, _ in advice.support] == ["labels", "network"]
    assert all(support.holds for _, support in advice.support)
    assert advice.right_then == 60


def test_nothing_is_proposed_for_a_right_model(check: Any) -> None:
    outcome = check({DARK: 20, BRIGHT: 1}, {BRIGHT: 15, MIDDLE: 4})
    assert outcome.judgements["light"].hypotheses
    assert not outcome.advice
    assert not any("too few" in note for note in outcome.notes)


def test_turned_photos_come_first_after_labels(check_photos: Any, photos: Path) -> None:
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    for label in ("dark", "bright"):
        for number in range(15):
            turned = number % 2
            pixels = np.full((32, 32), DARK, np.uint8)
            pixels[slice(16) if (label == "bright") != turned else slice(16, 32)] = BRIGHT
            exif = {"exif": upside_down} if turned else {}
            Image.fromarray(pixels).save(photos / label / f"{number:02}.jpg", **exif)
    outcome = check_photos("Above")
    (advice,) = outcome.advice
    assert [change for _, change in advice.changes] == ["write exif_rotation = true"]
    labels, exif, *_ = outcome.judgements["light"].hypotheses
    assert labels.fit.head.labels == ("bright", "dark")
    assert exif.fit.preprocessing.view.exif_rotation
    assert exif.holds


def test_chance_is_rarely_taken_for_a_cause() -> None:
    random = np.random.default_rng(0)
    truths = ["c", "d"] * 19
    head = HeadSpec("mud", "mud_logits", ("c", "d"), "softmax", None, "d")
    network: Any = SimpleNamespace(name="mud", heads=[head], combined=frozenset())
    served = Preprocessing(View(), "RGB", IMAGENET)
    others = [replace(served, normalisation=((number / 10,) * 3, (1.0,) * 3)) for number in range(10)]

    def fit(preprocessing: Preprocessing, labels: tuple[str, ...], share: float) -> Fit:
        changes = (preprocessing != served) + (labels != head.labels)
        right = list(random.random(len(truths)) < share)
        return Fit(network, replace(head, labels=labels), preprocessing, changes, right, truths)

    orders = ((("c", "d"), 0.2), (("d", "c"), 0.8))
    proposed = 0
    for _ in range(100):
        fits = [fit(one, labels, share) for one in (served, *others) for labels, share in orders]
        advice = advise(judge(fits))
        assert advice is not None
        proposed += len(advice.changes) > 1
    assert proposed <= 5


def test_paired_interval() -> None:
    # As by hand: 6/40 and 1/40, whose difference has a standard error of 0.0631.
    assert paired_interval(5, 0, 38) == pytest.approx((0.0013, 0.2487), abs=1e-3)
    assert paired_interval(5, 0, 38, tried=8)[0] < 0
    assert paired_interval(3, 3, 10)[0] == -paired_interval(3, 3, 10)[1]
    assert paired_interval(10, 0, 10) == (pytest.approx(0.520, abs=1e-3), 1.0)
