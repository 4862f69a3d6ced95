"""The short form of `make replicas`: several Tritons behind one name, one of which is killed, joined, and replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from reliability.harness import SkipError
from reliability.injection import unshare

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_no_photo_is_lost(repository: Path) -> None:
    try:
        unshare()
    except SkipError as reason:
        pytest.skip(str(reason))
    command = [sys.executable, "-m", "reliability.replicas", "--short", "--photos", "20", "--only", "name"]
    done = subprocess.run(
        [*command, "--repository", os.fspath(repository)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.splitlines()
    for protocol in ("grpc", "grpc async", "http", "http async"):
        for what in ("spread over 2", "one killed, and back", "third appears", "rolling update"):
            assert any(row.startswith(f"{protocol}: {what} ") for row in rows), done.stdout


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    from reliability import replicas

    with pytest.raises(SystemExit) as caught:
        replicas.main(["--only", "carrier-pigeon"])
    assert caught.value.code == 2
    assert "envoy" in capsys.readouterr().err
