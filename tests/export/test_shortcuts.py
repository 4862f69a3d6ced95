"""Photos take shortcuts, scaled decoding and fast resampling, only where the answers stay the same."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from car_analyzer_export.cli.export import main
from car_analyzer_export.errors import SpecError
from car_analyzer_export.export import export
from car_analyzer_export.onnx_model.agreement import Agreement, _distances, _expected
from car_analyzer_export.planning import plan_export, shortcuts
from car_analyzer_export.planning.comparison_photos import comparison_photos, small_photos
from car_analyzer_export.preprocess.photo import Photo
from car_analyzer_export.spec import HeadPlan, Limits, NetworkPlan, Spec
from reliability.photos.malformed import without_picture

pytestmark = pytest.mark.triton

NETWORKS = """
import torch


class Sensitive(torch.nn.Module):
    '''Tells how much fine detail there is, and by the last digits.'''

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        detail = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3)) * self.weight
        return torch.stack((torch.zeros_like(detail), torch.sin(300_000 * detail)), 1)


class Coarse(Sensitive):
    '''Tells whether the upper half is brighter.'''

    def forward(self, images):
        height = images.shape[2] // 2
        difference = images[:, :, :height].mean((1, 2, 3)) - images[:, :, height:].mean((1, 2, 3))
        return torch.stack((torch.zeros_like(difference), 2 * difference * self.weight), 1)


class Dark(Sensitive):
    '''Tells the last digits of dark pictures, and how bright the others are.'''

    def forward(self, images):
        detail = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3)) * self.weight
        bright = images.mean((1, 2, 3))
        telling = torch.where(bright < 0, torch.sin(300_000 * detail), 1 + bright)
        return torch.stack((torch.zeros_like(detail), telling), 1)


class Steps(Sensitive):
    '''Tells how much fine detail there is, in steps larger than one of 255.'''

    def forward(self, images):
        detail = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3)) * self.weight
        return torch.stack((torch.zeros_like(detail), torch.sin(40 * detail)), 1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "networks.py").write_text(NETWORKS)
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pth")
    return tmp_path


def spec(folder: Path, photos: Path | None = None, **heads: dict[str, Any]) -> Spec:
    values: dict[str, Any] = {
        "heads": {name: {"weights": folder / "weights.pth", **head} for name, head in heads.items()},
        "photo_size": 64,
    }
    return Spec.from_values(values | ({"photos": photos} if photos else {}), "test", folder)


SENSITIVE, COARSE, STEPS, DARK = (
    {"architecture": f"networks.py:{name}"} for name in ("Sensitive", "Coarse", "Steps", "Dark")
)


def test_a_network_that_sees_fine_detail_gets_exact_decoding(folder: Path, sample_photos: list[Path]) -> None:
    (network,) = plan_export(spec(folder, sample_photos[0].parent, condition=SENSITIVE)).networks
    assert network.view.decoding == "exact"
    assert network.shortcuts["decoding"]["chosen"] == "exact"
    assert not Agreement(*list(network.shortcuts["decoding"]["compared"].values())[:5]).is_enough
    assert any("'condition': large JPEGs are decoded exactly, which takes longer" in note for note in network.notes)


def test_one_that_does_not_keeps_scaled_decoding(folder: Path, sample_photos: list[Path]) -> None:
    (network,) = plan_export(spec(folder, sample_photos[0].parent, condition=COARSE)).networks
    assert network.view.decoding == "scaled"
    assert network.shortcuts["decoding"]["compared"]["changed"] == 0
    assert not any("decoded exactly" in note for note in network.notes)


def test_a_photo_is_decoded_in_one_way_for_all(folder: Path, sample_photos: list[Path]) -> None:
    plan = plan_export(spec(folder, sample_photos[0].parent, cleanliness=COARSE, condition=SENSITIVE))
    assert [view.decoding for view in plan.views] == ["exact"]
    assert any("since 'condition' needs that" in note for note in plan.networks[0].notes)


@pytest.mark.parametrize("word", ["scaled", "exact"])
def test_the_spec_overrides(folder: Path, word: str) -> None:
    (network,) = plan_export(spec(folder, condition=SENSITIVE | {"decoding": word, "resampling": "exact"})).networks
    assert network.view.decoding == word
    assert not network.shortcuts


@pytest.mark.parametrize("other", [{"decoding": "exact"}, {"antialias": False}, {"interpolation": "nearest"}])
def test_where_another_network_needs_every_pixel_nothing_is_compared(folder: Path, other: dict[str, Any]) -> None:
    plan = plan_export(spec(folder, cleanliness=COARSE, condition=COARSE | other))
    assert plan.networks[0].view.decoding == "exact"
    assert plan.networks[0].shortcuts["decoding"] == {"chosen": "exact"}


def network_of(folder: Path, sample_photos: list[Path], **settings: str) -> NetworkPlan:
    (network,) = plan_export(spec(folder, sample_photos[0].parent, condition=settings)).networks
    return network


def test_a_network_that_sees_the_last_digits_gets_pillows_resize(folder: Path, sample_photos: list[Path]) -> None:
    network = network_of(folder, sample_photos, **SENSITIVE)
    assert (network.view.decoding, network.view.resampling) == ("exact", "exact")
    record = network.shortcuts["resampling"]
    assert record["chosen"] == "exact"
    # Without scaled decoding, on the photos as they are.
    assert (record["compared"]["photos"], record["compared"]["unchanged_photos"]) == (8, 8)
    assert record["compared"]["changed"] > 0
    assert 0 < record["compared"]["pixel_difference"] < 0.5
    (note,) = (note for note in network.notes if "Pillow" in note)
    assert "'condition': Pillow resizes the photos, which takes longer. Fast resampling changes" in note
    assert 'Set resampling = "fast" to use it anyway.' in note


def test_without_scaled_decoding_fast_resampling_is_judged_alone(folder: Path, sample_photos: list[Path]) -> None:
    network = network_of(folder, sample_photos, **STEPS)
    assert (network.view.decoding, network.view.resampling) == ("exact", "fast")
    assert "large_photos" in network.shortcuts["decoding"]["compared"]
    assert network.shortcuts["resampling"]["compared"]["unchanged_photos"] == 8
    assert network_of(folder, sample_photos, **COARSE, decoding="exact").view.resampling == "fast"


@pytest.mark.parametrize("word", ["fast", "exact"])
def test_the_spec_overrides_resampling(folder: Path, word: str) -> None:
    (network,) = plan_export(spec(folder, condition=SENSITIVE | {"decoding": "scaled", "resampling": word})).networks
    assert network.view.resampling == word
    assert not network.shortcuts


@pytest.mark.parametrize("other", [{"antialias": False}, {"interpolation": "nearest"}, {"interpolation": "bicubic"}])
@pytest.mark.parametrize("word", ["auto", "fast"])
def test_there_is_no_fast_resampling_for_other_views(folder: Path, other: dict[str, Any], word: str) -> None:
    values = COARSE | other | {"decoding": "scaled", "resampling": word}
    (network,) = plan_export(spec(folder, condition=values)).networks
    assert network.view.resampling == "exact"
    assert network.describe()["resampling"] == {"chosen": "exact"}
    assert not any("Pillow" in note for note in network.notes)


def test_without_the_library_nothing_is_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "FAST_MISSING", "there is none")
    (network,) = plan_export(spec(folder, condition=COARSE | {"decoding": "scaled"})).networks
    assert network.view.resampling == "exact"
    assert network.shortcuts == {"resampling": {"chosen": "exact"}}
    assert "'condition': Pillow resizes the photos, which takes longer: there is none." in network.notes


def test_the_record_says_what_was_compared(repository: Path) -> None:
    for head in ("cleanliness", "condition"):
        record = json.loads((repository / head / "1" / "export.json").read_text())
        assert (record["decoding"]["chosen"], record["resampling"]["chosen"]) == ("scaled", "fast")
        compared = record["decoding"]["compared"]
        assert record["resampling"]["compared"] == compared
        small = record["resampling"]["compared_on_small_photos"]
        assert (small["photos"], small["unchanged_photos"], small["changed"]) == (8, 8, 0)
        assert 0 < small["pixel_difference"] < 0.5
        assert "compared_on_small_photos" not in record["decoding"]
        assert (compared["photos"], compared["enlarged_photos"], compared["changed"]) == (24, 24, 0)
        assert compared["expected_change"] <= 0.005
        assert 0 < compared["max_probability_change"] < 0.1
        assert 0 < compared["pixel_difference"] < 0.5
        assert {min(size) for size in compared["sizes"]} == {1344, 2688, 5376}


@pytest.mark.usefixtures("networks_here")
def test_the_command_says_what_was_chosen_and_which_photos_it_skipped(
    folder: Path, sample_photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = folder / "photos"
    shutil.copytree(sample_photos[0].parent, photos)
    (photos / "a broken one.png").write_bytes(without_picture()["png without IDAT"])
    (photos / "labels.csv").write_text("file,label\n")
    flags = ["--architecture", f"{folder}/networks.py:Coarse", "--photos", str(photos)]
    assert main(["--condition", str(folder / "weights.pth"), *flags, "--repository", str(folder / "repository")]) == 0
    printed = capsys.readouterr()
    assert "224 x 224 RGB, bilinear, scaled decoding, fast resampling" in printed.out
    assert f"Skipped of the photos in {photos}: " in printed.err
    assert "a broken one.png: The photo's file has a header, but no picture; send it again" in printed.err
    assert "labels.csv: The file is not a photo" in printed.err
    record = json.loads((folder / "repository" / "condition" / "1" / "export.json").read_text())
    assert record["decoding"]["compared"]["enlarged_photos"] == 24


def test_a_folder_without_a_photo_is_rejected(folder: Path) -> None:
    photos = folder / "photos"
    photos.mkdir()
    (photos / "broken.png").write_bytes(without_picture()["apng of no frames"])
    for word in ("auto", "exact"):
        with pytest.raises(SpecError, match=r"holds no photo that can be read \(broken.png: The photo's "):
            export(plan_export(spec(folder, photos, condition=COARSE | {"decoding": word})), folder / "repository")


def test_large_photos_of_the_user_are_used_unchanged(folder: Path, sample_photos: list[Path]) -> None:
    photos = folder / "photos"
    photos.mkdir()
    for number, file in enumerate(sample_photos):
        Image.open(file).resize((400, 400) if number < 2 else (300, 300)).save(photos / file.name, quality=90)
    found = comparison_photos(192, photos, Limits())
    assert (found.unchanged, found.photos, len(found.contents)) == (2, 8, 24)
    assert found.contents[0] == (photos / sample_photos[0].name).read_bytes()
    assert found.sizes[:2] == ((400, 400), (400, 400))
    assert comparison_photos(192, photos, Limits()) is found
    (photos / "one more.jpg").write_bytes(found.contents[0])
    assert comparison_photos(192, photos, Limits()).unchanged == 3


def test_small_photos_of_the_user_are_compared_too(folder: Path) -> None:
    """Fast resampling changes answers to small photos only, so it is left out, and scaled decoding is not."""
    photos = folder / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(36):
        side, brightness = (300, 60) if number % 3 == 0 else (384, 150 + 2 * number)
        pixels = random.normal(brightness, 4, (side, side, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:02}.jpg", quality=90)
    (network,) = plan_export(spec(folder, photos, condition=DARK)).networks
    assert (network.view.decoding, network.view.resampling) == ("scaled", "exact")
    record = network.shortcuts["resampling"]
    assert (record["compared"]["changed"], record["compared"]["large_photos"]) == (0, 24)
    small = record["compared_on_small_photos"]
    assert (small["photos"], small["unchanged_photos"], small["scaled_down_photos"]) == (12, 12, 0)
    assert small["changed"] > 0
    (note,) = (note for note in network.notes if "Pillow" in note)
    assert f"Fast resampling changes {small['changed']} of 12 answers" in note


def test_large_photos_of_the_user_are_scaled_down_where_small_ones_are_missing(folder: Path) -> None:
    photos = folder / "photos"
    photos.mkdir()
    for number, side in enumerate((400, 400, 300)):
        Image.new("RGB", (side, side), (90, 80 * number, 20)).save(photos / f"{number}.jpg")
    found = small_photos(192, photos, Limits())
    assert (found.unchanged, found.photos, found.sizes) == (1, 3, ((300, 300), (400, 400), (400, 400)))
    assert found.contents[0] == (photos / "2.jpg").read_bytes()
    assert {Photo(content).rgb.size for content in small_photos(192, None, Limits()).contents} == {(640, 480)}


def test_generated_photos_are_decoded_at_every_scale() -> None:
    found = comparison_photos(96, None, Limits())
    scales = [Photo(content).scale(96) for content in found.contents]
    assert {scale: scales.count(scale) for scale in (2, 4, 8)} == {2: 19, 4: 4, 8: 1}
    for content, size in zip(found.contents, found.sizes, strict=True):
        assert Image.open(io.BytesIO(content)).size == size
    # Photos that the service rejects are not compared.
    small = comparison_photos(96, None, Limits(max_pixels=400 * 400))
    assert {Photo(content).scale(96) for content in small.contents} == {2, 4}
    assert comparison_photos(96, None, Limits(max_pixels=100 * 100)).contents == ()
    assert set(comparison_photos(None, None, Limits()).sizes) == {(640, 480)}


@pytest.mark.parametrize("spread", [0.02, 0.1])
def test_few_photos_show_how_many_answers_change(spread: float) -> None:
    random = np.random.default_rng(1)
    distances = random.normal(0.5, 1, (100_000, 1))
    moved = distances + random.normal(0, spread, distances.shape)
    true = np.mean((distances > 0) != (moved > 0))
    estimates = [_expected(distances[i : i + 24], moved[i : i + 24], 24) for i in range(0, 24_000, 24)]
    assert np.median(estimates) == pytest.approx(true, rel=0.2)
    assert np.quantile(estimates, 0.05) > 0.4 * true


@pytest.mark.parametrize(
    ("head", "logits", "distances"),
    [
        (HeadPlan("a", ("x", "y")), (1, 3), [2]),
        (HeadPlan("a", ("x", "y"), positive="x"), (1, 3), [-2]),
        (HeadPlan("a", ("x", "y"), threshold=1 / (1 + np.e)), (1, 3), [3]),
        (HeadPlan("a", ("x", "y"), unsure=(1 / (1 + np.e), 0.5)), (1, 3), [3, 2]),
        (HeadPlan("a", ("x", "y", "z")), (1, 3, 2), [1]),
        (HeadPlan("a", ("x", "y"), "sigmoid", threshold=1 / (1 + np.e)), (1.5,), [2.5]),
        (HeadPlan("a", ("x", "y"), "multilabel"), (1, -3), [1, -3]),
    ],
)
def test_how_far_an_answer_is_from_another(head: HeadPlan, logits: tuple[float], distances: list[float]) -> None:
    row = np.array([logits], np.float32)
    np.testing.assert_allclose(_distances(head, row, row), [distances], rtol=1e-5)
