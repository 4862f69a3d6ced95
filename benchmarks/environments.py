"""A virtual environment for each rival, made once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

RIVALS = Path(__file__).parent / "rivals"


def prepare(names: set[str], folder: Path) -> set[str]:
    """Makes what is missing; returns the rivals that can be measured. Who cannot be installed is named and left out."""
    return {name for name in sorted(names) if _prepare(name, folder / name)}


def _prepare(name: str, folder: Path) -> bool:
    requirements = RIVALS / name / "requirements.txt"
    if not requirements.is_file():
        return False
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    made_of = folder / "made_of"
    if made_of.is_file() and made_of.read_text() == digest:
        return True
    print(f"Installing {name} ...", file=sys.stderr)
    pip: list[str | Path] = [
        folder / "bin" / "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
        requirements,
    ]
    make: list[str | Path] = [sys.executable, "-m", "venv", "--clear", folder]
    for command in (make, pip):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(f"left out: {name} cannot be installed: {ended.stderr.strip()[-300:]}", file=sys.stderr)
            return False
    made_of.write_text(digest)
    return True
