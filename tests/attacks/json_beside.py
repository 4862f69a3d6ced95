"""Hostile JSON files beside good weights, and pipes that never end."""

# ruff: noqa: ARG001 - not every attack uses the canary

from __future__ import annotations

import os
from pathlib import Path

from .hostile import WEIGHTS, attack, saved


def with_json(folder: Path, content: bytes) -> Path:
    (folder / "hostile.json").write_bytes(content)
    return saved(folder, WEIGHTS)


@attack("at most 1,048,576 bytes")
def _huge_json(folder: Path, canary: Path) -> Path:
    return with_json(folder, b'["' + b"x" * (8 << 20) + b'"]')


@attack("not valid JSON")
def _deep_json(folder: Path, canary: Path) -> Path:
    return with_json(folder, b"[" * 200_000 + b"]" * 200_000)


@attack("not valid JSON")
def _endless_number_in_json(folder: Path, canary: Path) -> Path:
    return with_json(folder, b'{"threshold": ' + b"9" * 900_000 + b"}")


@attack("at most 1,048,576 bytes")
def _json_that_never_ends(folder: Path, canary: Path) -> Path:
    """Opening a pipe that nobody writes to blocks forever."""
    os.mkfifo(folder / "hostile.json")
    return saved(folder, WEIGHTS)


@attack("not a regular file")
def _checkpoint_that_never_ends(folder: Path, canary: Path) -> Path:
    os.mkfifo(folder / "hostile.pth")
    return folder / "hostile.pth"
