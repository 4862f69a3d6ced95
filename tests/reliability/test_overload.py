"""The short form of `make overload`: nothing hangs, what waits is bounded, and afterwards every photo is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reliability import overload

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", overload.KINDS)
def test_everything_is_answered_or_rejected(kind: str, repository: Path) -> None:
    rows = {row.name: row for row in overload.try_overload(kind, repository, seconds=3, around=1)}
    assert rows[f"{kind} requests"].tried > 20
    # Speed, memory and faults are not checked: other tests run beside this one, and Triton gives up on a process that
    # gets no processor time.
    for promise in ("requests", "queue", "backlog", "afterwards"):
        row = rows[f"{kind} {promise}"]
        assert row.tried
        assert not row.lost, row


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        overload.main(["--only", "carrier-pigeon"])
    assert caught.value.code == 2
    assert "gateway" in capsys.readouterr().err
