"""The progress of long commands: lines in logs, a bar on a terminal, both on stderr."""

from __future__ import annotations

import io
import sys

import pytest

from car_analyzer_export.cli.common import progress_bar


def two_steps() -> None:
    with progress_bar(2, "starting PyTorch") as progress:
        progress("comparing with PyTorch")


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    two_steps()
    assert capsys.readouterr() == ("", "[1/2] starting PyTorch\n[2/2] comparing with PyTorch\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    two_steps()
    shown = terminal.getvalue()
    assert "1/2" in shown
    assert "comparing with PyTorch" in shown
    assert "[1/2]" not in shown
    assert "\n" not in shown
    assert capsys.readouterr() == ("", "")
