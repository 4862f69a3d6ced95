"""Statistics of photos, and their comparison with recorded ones."""

from __future__ import annotations

import io
import json

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from car_analyzer import ConfigurationError, Head
from car_analyzer.drift import (
    LEAST_PHOTOS,
    MOST_VALUES,
    STATISTICS,
    Observation,
    Reference,
    given_answers,
    photo_statistics,
)

Pixels = npt.NDArray[np.uint8]


def file_of(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return file.getvalue()


def pixels(seed: int = 0) -> Pixels:
    """A reddish picture with a few strongly red places."""
    rng = np.random.default_rng(seed)
    found = rng.integers(80, 120, (32, 32, 3))
    found[:6, :6, 0] += 100
    return found.astype(np.uint8)


def observations(count: int, seed: int, shift: float = 0.0, damaged: float = 0.3) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation(
            {name: float(f"{rng.normal(shift if name == 'brightness' else 0.0):.4g}") for name in STATISTICS},
            {"condition": ("damaged" if rng.random() < damaged else "intact",)},
        )
        for _ in range(count)
    ]


def recorded(count: int = 300) -> Reference:
    reference = Reference.of(observations(count, 1))
    assert reference is not None
    # As the gateway reads it.
    return Reference.from_json(reference.to_json())


def test_each_statistic_is_of_what_it_is_named_for() -> None:
    photo = file_of((2000, 1000))
    plain = photo_statistics(pixels(), photo)
    assert list(plain) == list(STATISTICS)
    assert plain["megapixels"] == 2
    assert plain["bytes_per_pixel"] == pytest.approx(len(photo) / 2e6, rel=1e-3)
    swapped = photo_statistics(pixels()[..., ::-1], photo)
    assert swapped["red_blue"] == pytest.approx(-plain["red_blue"], abs=1e-4)
    assert swapped["red_blue_skew"] == pytest.approx(-plain["red_blue_skew"], rel=1e-2)
    assert plain["red_blue_skew"] > 1
    assert swapped["green"] == plain["green"]
    assert swapped["saturation"] == plain["saturation"]
    half = photo_statistics(pixels() // 2, photo)
    assert half["brightness"] == pytest.approx(plain["brightness"] / 2, rel=0.02)
    assert half["contrast"] < plain["contrast"]
    assert half["sharpness"] < plain["sharpness"]


def test_a_grey_or_tiny_picture_has_statistics() -> None:
    found = photo_statistics(np.full((2, 2, 3), 255, np.uint8), file_of((2, 2)))
    assert (found["brightness"], found["sharpness"], found["red_blue_skew"]) == (1, 0, 0)


def test_of_a_file_that_only_the_server_can_read_the_pixels_count() -> None:
    assert list(photo_statistics(pixels(), b"no photo")) == list(STATISTICS)[:-2]


def test_photos_like_the_recorded_ones_raise_no_alarm() -> None:
    scores = [recorded().compare(observations(250, seed))[0].score for seed in range(100, 140)]
    assert max(scores) < 1


def test_a_change_is_named() -> None:
    first, *others = recorded().compare(observations(250, 2, shift=-1.0))
    assert (first.statistic, first.rises, first.head) == ("brightness", False, None)
    assert first.score > 1
    assert first.sentence.startswith("photos are darker: median brightness -")
    assert "(5 to 95 %: " in first.sentence
    assert all(one.score < 1 for one in others)
    assert {one.statistic for one in [first, *others]} == {*STATISTICS, "answers_condition"}


def test_other_answers_are_named() -> None:
    first = recorded().compare(observations(250, 2, damaged=0.6))[0]
    assert (first.statistic, first.head, first.label) == ("answers_condition", "condition", "damaged")
    assert first.score > 1
    assert "often: " in first.sentence


def test_a_new_label_counts() -> None:
    window = [Observation(one.statistics, {"condition": ("unsure",)}) for one in observations(250, 2)]
    first = recorded().compare(window)[0]
    assert first.label == "unsure"
    assert "condition is unsure more often: 100% of the photos, recorded 0%" in first.sentence


def test_few_recorded_photos_are_less_certain() -> None:
    window = observations(250, 2, shift=-0.7)
    few, many = (recorded(count).compare(window)[0].score for count in (LEAST_PHOTOS, 2000))
    assert few < many


def test_too_few_photos_are_not_recorded() -> None:
    assert Reference.of(observations(LEAST_PHOTOS - 1, 1)) is None
    assert Reference.of([]) is None


def test_the_reference_stays_small_and_close() -> None:
    many = Reference.of(observations(5000, 1))
    assert many is not None
    assert len(many.values["brightness"]) == MOST_VALUES
    assert len(many.to_json()) < 20_000
    assert many.compare(observations(5000, 1))[0].score < 0.1
    assert json.dumps(many.describe())


def test_statistics_that_photos_lack_are_left_out() -> None:
    window = [Observation({"brightness": 0.1}, {"condition": ("intact",)}) for _ in range(250)]
    assert {one.statistic for one in recorded().compare(window)} == {"brightness", "answers_condition"}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"photos": 1, "statistics": 3, "answers": {}}'])
def test_an_unknown_format_is_a_clear_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the recorded statistics"):
        Reference.from_json(text)


def test_given_answers() -> None:
    heads = {
        "one": Head("dirty", 0.9, {}, ()),
        "several": Head("a, b", 0.9, {}, (), ("a", "b")),
        "nothing": Head("", 0.9, {}, (), ()),
    }
    assert given_answers(heads) == {"one": ("dirty",), "several": ("a", "b"), "nothing": ("none",)}
