"""Causes that only the text of an error tells are read from one table."""

from __future__ import annotations

import pytest

from car_analyzer import CarAnalyzerError, ConfigurationError, PhotoError
from car_analyzer._transports.base import invalid_argument
from car_analyzer.triton_messages import PATTERNS, Cause, has_cause

CAUSES = {
    "Stub process 'preprocess_0_1' is not healthy.": Cause.BACKEND_RESTARTING,
    "Failed to copy the output tensor to buffer": Cause.BACKEND_RESTARTING,
    "Failed to increase the shared memory pool size for key 'x'": Cause.BACKEND_RESTARTING,
    "Server is stopping, scheduler for model has stopped accepting new inference requests": Cause.SHUTTING_DOWN,
    "Server not ready": Cause.SHUTTING_DOWN,
    "The service is stopping; try again in a moment.": Cause.SHUTTING_DOWN,
    "Model 'car_analyzer' has no available versions": Cause.NO_VERSION_LOADED,
    "Request for unknown model: 'truck_analyzer' is not found": Cause.UNKNOWN_MODEL,
    "[request id: 7] in ensemble 'car_analyzer', The photo is damaged.": Cause.STEP_REJECTED,
    "Export 0123456789abcdef is not served here.": Cause.OTHER_EXPORT,
    "The photo is empty: it has 0 bytes.": Cause.PHOTO_EMPTY,
    "The photo has 45,000,000 bytes; at most 20,000,000 are accepted.": Cause.PHOTO_TOO_LARGE,
    "The photo is 9000 x 9000 pixels (81 megapixels); at most 64 are accepted.": Cause.PHOTO_TOO_LARGE,
    "Decoding the photo would take too much memory; save it smaller, or as JPEG.": Cause.PHOTO_TOO_LARGE,
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
    ("message", "kind", "code"),
    [
        ("in ensemble 'car_analyzer', The photo is damaged.", PhotoError, "photo.invalid"),
        ("in ensemble 'car_analyzer', The photo is empty: it has 0 bytes.", PhotoError, "photo.empty"),
        ("in ensemble 'car_analyzer', The photo has 9 bytes; at most 8 are accepted.", PhotoError, "photo.too_large"),
        (
            "Request size exceeds the maximum allowed value. Use --http-max-input-size to increase it.",
            PhotoError,
            "photo.too_large",
        ),
        ("unexpected inference input 'image' for model 'condition'", ConfigurationError, "model.unsuitable"),
    ],
)
def test_only_some_messages_blame_the_photo(message: str, kind: type[CarAnalyzerError], code: str) -> None:
    error = invalid_argument("car_analyzer", message)
    assert (type(error), error.code) == (kind, code)
