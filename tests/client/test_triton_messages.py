"""Causes that only the text of an error tells are read from one table."""

from __future__ import annotations

import pytest

from car_analyzer import ConfigurationError, PhotoError
from car_analyzer._transports.base import invalid_argument
from car_analyzer.triton_messages import PATTERNS, Cause, has_cause

CAUSES = {
    "Stub process 'preprocess_0_1' is not healthy.": Cause.BACKEND_RESTARTING,
    "Failed to copy the output tensor to buffer": Cause.BACKEND_RESTARTING,
    "Failed to increase the shared memory pool size for key 'x'": Cause.BACKEND_RESTARTING,
    "Server is stopping, scheduler for model has stopped accepting new inference requests": Cause.SHUTTING_DOWN,
    "Server not ready": Cause.SHUTTING_DOWN,
    "Model 'car_analyzer' has no available versions": Cause.NO_VERSION_LOADED,
    "Request for unknown model: 'truck_analyzer' is not found": Cause.UNKNOWN_MODEL,
    "[request id: 7] in ensemble 'car_analyzer', The photo is damaged.": Cause.STEP_REJECTED,
    "Export 0123456789abcdef is not served here.": Cause.OTHER_EXPORT,
    "This protocol is restricted, expecting header 'triton-grpc-protocol-key'": Cause.RESTRICTED,
    "CLIENT: Sent message larger than max (71 vs. 10)": Cause.TOO_LARGE,
    "Request size exceeds the maximum allowed value. Use --http-max-input-size to increase it.": Cause.TOO_LARGE,
    "failed to connect to all addresses; last error: UNKNOWN: Connection refused": Cause.NO_CONNECTION,
    "Socket closed": Cause.NO_CONNECTION,
    "Received RST_STREAM with error code 2": Cause.STREAM_RESET,
    "Exceeds maximum queue size": None,
    "The photo is damaged and cannot be decoded.": None,
}


@pytest.mark.parametrize("message", CAUSES)
def test_a_message_has_one_cause(message: str) -> None:
    assert [cause for cause in Cause if has_cause(message, cause)] == [one for one in [CAUSES[message]] if one]


def test_every_row_says_where_it_was_seen() -> None:
    assert {row.cause for row in PATTERNS} == set(Cause) == set(CAUSES.values()) - {None}
    assert all(row.seen_in for row in PATTERNS)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("in ensemble 'car_analyzer', The photo is damaged.", PhotoError),
        ("Request size exceeds the maximum allowed value. Use --http-max-input-size to increase it.", PhotoError),
        ("unexpected inference input 'image' for model 'condition'", ConfigurationError),
    ],
)
def test_only_some_messages_blame_the_photo(message: str, kind: type[Exception]) -> None:
    assert type(invalid_argument("car_analyzer", message)) is kind
