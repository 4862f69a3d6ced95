"""The short form of `python -m reliability.drift`."""

from __future__ import annotations

import pytest

from reliability import drift


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "WINDOW", 60)


def test_swapped_colours_are_noticed_and_like_photos_are_not() -> None:
    photographer = drift.Photographer(drift.PHOTOS, 0)
    changed = drift.try_change("red and blue swapped", photographer, 100)
    assert not changed.broken, changed
    alike = drift.try_alike(photographer, 100, 60)
    assert alike.note.startswith("0 alarms")


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        drift.main(["--recorded", "0"])
    with pytest.raises(SystemExit) as caught:
        drift.main(["--help"])
    assert caught.value.code == 0
    assert "--alike" in capsys.readouterr().out
