"""The short form of `make faults`: some faults, done to a real service while photos are on their way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from reliability import faults, mischief

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["stub-busy", "triton-killed", "replaced", "network-lost"])
def test_no_photo_is_lost(name: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mischief, "CUT_S", 1.0)
    rows = list(faults.all_trials()[name][1](repository))
    assert len(rows) == 2
    for row in rows:
        assert row.tried >= faults.BEFORE + faults.AFTER
        assert not row.lost, row


def test_what_is_lost_is_counted(repository: Path) -> None:
    def stop(trial: mischief.Trial) -> None:
        trial.service.stop()
        time.sleep(0.1)
        raise RuntimeError("this is not mended")

    lost = faults.try_fault(mischief.Fault("stopped", "nobody starts it again", stop), repository, timeout=2)
    assert next(lost).lost > faults.AFTER
    assert faults.main(["--list"]) == 0


def test_an_unknown_fault_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        faults.main(["--only", "rain"])
    assert caught.value.code == 2
    assert "triton-killed" in capsys.readouterr().err
