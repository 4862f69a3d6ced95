"""What only an error's words tell is read from one table."""

from __future__ import annotations

import pytest

from car_analyzer import ConfigurationError, PhotoError
from car_analyzer._transports.base import rejected
from car_analyzer.triton_messages import SENTENCES, Meaning, says

SAID = {
    "Stub process 'preprocess_0_1' is not healthy.": Meaning.MENDING,
    "Failed to copy the output tensor to buffer": Meaning.MENDING,
    "Failed to increase the shared memory pool size for key 'x'": Meaning.MENDING,
    "Server is stopping, scheduler for model has stopped accepting new inference requests": Meaning.STOPPING,
    "Server not ready": Meaning.STOPPING,
    "Model 'car_analyzer' has no available versions": Meaning.COMING,
    "Request for unknown model: 'truck_analyzer' is not found": Meaning.UNKNOWN_MODEL,
    "[request id: 7] in ensemble 'car_analyzer', The photo is damaged.": Meaning.FROM_A_STEP,
    "This protocol is restricted, expecting header 'triton-grpc-protocol-key'": Meaning.RESTRICTED,
    "CLIENT: Sent message larger than max (71 vs. 10)": Meaning.TOO_LARGE,
    "Request size exceeds the maximum allowed value. Use --http-max-input-size to increase it.": Meaning.TOO_LARGE,
    "failed to connect to all addresses; last error: UNKNOWN: Connection refused": Meaning.NO_CONNECTION,
    "Socket closed": Meaning.NO_CONNECTION,
    "Received RST_STREAM with error code 2": Meaning.STREAM_RESET,
    "Exceeds maximum queue size": None,
    "The photo is damaged and cannot be decoded.": None,
}


@pytest.mark.parametrize("message", SAID)
def test_a_sentence_has_one_meaning(message: str) -> None:
    assert [meaning for meaning in Meaning if says(message, meaning)] == [one for one in [SAID[message]] if one]


def test_every_row_says_where_it_was_seen() -> None:
    assert {row.meaning for row in SENTENCES} == set(Meaning) == set(SAID.values()) - {None}
    assert all(row.seen for row in SENTENCES)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("in ensemble 'car_analyzer', The photo is damaged.", PhotoError),
        ("Request size exceeds the maximum allowed value. Use --http-max-input-size to increase it.", PhotoError),
        ("unexpected inference input 'image' for model 'condition'", ConfigurationError),
    ],
)
def test_a_photo_is_at_fault_only_where_that_is_said(message: str, kind: type[Exception]) -> None:
    assert type(rejected("car_analyzer", message)) is kind
