"""What counts as an attempt, without a server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from car_analyzer import CarAnalyzerError, DeadlineExceededError, OverloadedError, Retry, UnreachableError
from car_analyzer._transports.retry import Deadline, retry_call

# Long limits for slow machines, and short pauses.
RETRY = Retry(base_delay=0.001, max_delay=0.001, attempts=3, connect_patience=600.0, reconnect_patience=600.0)


def attempts_of(retry: Retry, failure: CarAnalyzerError, failures: int) -> int:
    """How many attempts are made of a call that would succeed after so many failures."""
    attempts = 0

    async def attempt(_: float) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= failures:
            raise failure

    try:
        asyncio.run(retry_call(attempt, Deadline(600), retry, lambda: True))
    except type(failure):
        pass
    return attempts


@pytest.mark.parametrize(
    ("retry", "failure", "attempts"),
    [
        (RETRY, OverloadedError("the queue is full"), 3),
        (RETRY, UnreachableError("connection refused"), 11),
        (replace(RETRY, reconnect_patience=None), UnreachableError("connection refused"), 3),
        (replace(RETRY, reconnect_patience=0.0), UnreachableError("connection refused"), 1),
        (replace(RETRY, attempts=1), UnreachableError("connection refused"), 1),
        (replace(RETRY, attempts=None), OverloadedError("the queue is full"), 11),
    ],
)
def test_attempts(retry: Retry, failure: CarAnalyzerError, attempts: int) -> None:
    assert attempts_of(retry, failure, failures=10) == attempts


def test_the_last_moments_do_not_hide_what_the_server_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([600.0, 600.0, 0.05, 0.0, 0.0])
    monkeypatch.setattr(Deadline, "left", property(lambda _: next(left)))
    failures = iter([OverloadedError("the queue is full"), UnreachableError("no connection within 0.045 s")])

    async def attempt(_: float) -> None:
        raise next(failures)

    with pytest.raises(DeadlineExceededError, match="the queue is full"):
        asyncio.run(retry_call(attempt, Deadline(600), RETRY, lambda: True))
