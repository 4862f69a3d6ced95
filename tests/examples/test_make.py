"""The Makefile's choice of models: one's own, or the demo models, which have a repository of their own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def commands(*arguments: str) -> str:
    """What make would run."""
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_own_models_are_served(tmp_path: Path) -> None:
    model = tmp_path / "condition" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.touch()
    planned = commands("serve", f"REPOSITORY={tmp_path}")
    assert f"gateway --repository {tmp_path}" in planned
    assert "car-analyzer export" not in planned


def test_without_models_the_demo_is_served_and_the_repository_left_alone(tmp_path: Path) -> None:
    planned = commands("serve", f"REPOSITORY={tmp_path}")
    assert "gateway --repository build/demo" in planned
    assert f"--repository {tmp_path}" not in planned


def test_the_demo_exports_into_its_own_repository(tmp_path: Path) -> None:
    planned = commands("demo", "--always-make", f"REPOSITORY={tmp_path}")
    assert "export examples/demo.toml --repository build/demo" in planned
    assert str(tmp_path) not in planned
