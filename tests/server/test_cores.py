"""The cores that a process may use, with and without a container's limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from car_analyzer_server import cores as module
from car_analyzer_server.cores import cores

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", ALLOWED), ("50000 100000", 1), ("100000 100000", 1), ("9900000 1000", ALLOWED)],
)
def test_version_2(limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(module, "_QUOTAS", (file, tmp_path / "none"))
    assert cores() == expected


@pytest.mark.parametrize(("limit", "expected"), [("-1", ALLOWED), ("100000", 1), ("", ALLOWED)])
def test_version_1(limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("quota", limit), ("period", "100000")):
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(module, "_QUOTAS", (tmp_path / "none", tmp_path / "quota"))
    monkeypatch.setattr(module, "_PERIOD", tmp_path / "period")
    assert cores() == expected


def test_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUOTAS", (tmp_path / "none", tmp_path / "none"))
    assert cores() == ALLOWED
