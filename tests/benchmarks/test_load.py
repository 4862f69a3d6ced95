"""The load counts an answer only if it is right."""

from __future__ import annotations

import pytest

from benchmarks.load import TOLERANCE, is_right

EXPECTED = {
    "cleanliness": "clean",
    "cleanlinessConfidence": 0.50005,
    "condition": "damaged",
    "conditionConfidence": 0.9,
}


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"conditionConfidence": 0.9 + TOLERANCE / 2, "processingTime": 4}, True),
        ({"conditionConfidence": 0.9 + TOLERANCE * 2}, False),
        ({"condition": "intact"}, False),
        ({"cleanliness": "dirty", "cleanlinessConfidence": 0.50001}, True),
    ],
    ids=["the same", "nearly the same", "other confidence", "other label", "a tie that falls to the other side"],
)
def test_an_answer_is_right_with_the_expected_probabilities(changes: dict[str, object], right: bool) -> None:
    assert is_right(EXPECTED | changes, EXPECTED) is right
