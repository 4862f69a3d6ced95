"""The short form of `make faults`: some faults, injected into a real service while photos are on their way."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from reliability import faults, injection

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injection, "OUTAGE_S", 1.0)
    monkeypatch.setattr(faults, "BEFORE", 8)
    monkeypatch.setattr(faults, "AFTER", 8)


def test_no_photo_is_lost(repository: Path) -> None:
    def one_after_the_other(target: injection.Target) -> None:
        injection.kill_stub("preprocess", target)
        injection.freeze_and_cut(target)
        injection.signal_triton(signal.SIGKILL, target)
        injection.replace_service(target)

    several = injection.Fault("several", "one after the other", one_after_the_other, proxied=True)
    # However long the service takes to come back: whether that is within 30 s is for `make faults`.
    rows = list(faults.try_fault(several, repository, timeout=150))
    assert [row.name for row in rows] == ["several grpc", "several http"]
    for row in rows:
        assert row.tried >= 16
        assert not row.lost, row


def test_what_is_lost_is_counted(repository: Path) -> None:
    def stop(target: injection.Target) -> None:
        target.service.stop()

    stopped = injection.Fault("stopped", "and nobody starts it again", stop)
    row = next(faults.try_fault(stopped, repository, timeout=1))
    assert row.lost >= 8
    assert "failed: " in row.note


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["--list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(faults.all_trials())
    with pytest.raises(SystemExit) as caught:
        faults.main(["--only", "rain"])
    assert caught.value.code == 2
    assert "triton-killed" in capsys.readouterr().err
