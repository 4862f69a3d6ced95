"""Triton's own load generator, perf_analyzer: it counts the photos a second of the same service independently of ours.

The wheels of `perf-analyzer` need a newer glibc than Debian 12 has; the last wheels of `tritonclient` that contain the
program do not. Two libraries that it needs come with Triton's wheel.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .clients import element
from .systems import prepare

if TYPE_CHECKING:
    from .load import Load

_LIBRARIES = {"libb64.so.0d": "libb64-*", "libcudart.so.12": "libcudart-*"}
_WINDOWS = 3  # it measures at least three times


@cache
def find_program(environments: Path) -> Path | None:
    """Installs it, once; None if it does not run on this machine, which is printed."""
    if not prepare("perf_analyzer", environments):
        return None
    home = environments / "perf_analyzer"
    for name, pattern in _LIBRARIES.items():
        for file in _triton_libraries().glob(pattern):
            (home / "lib" / name).unlink(missing_ok=True)
            (home / "lib" / name).symlink_to(file)
    program = home / "bin" / "perf_analyzer"
    ended = _run(program, ["--version"])
    if ended.returncode:
        print(f"left out: perf_analyzer does not run: {ended.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return program


def measure(program: Path, load: Load) -> float:
    """Photos a second of a Triton, which the clients `grpc` and `http` reach.

    Raises:
        RuntimeError: It measured nothing.
    """
    contents = [base64.b64encode(element(photo.read_bytes())).decode() for photo in sorted(Path(load.photos).iterdir())]
    data = {"data": [{"image": {"content": {"b64": content}, "shape": [1]}} for content in contents]}
    with tempfile.TemporaryDirectory() as folder:
        given, report = Path(folder) / "data.json", Path(folder) / "report.csv"
        given.write_text(json.dumps(data), encoding="utf-8")
        arguments = ["-m", "car_analyzer", "-u", urlsplit(load.url).netloc, "-i", load.client]
        arguments += ["--input-data", str(given), "--concurrency-range", str(load.clients), "-f", str(report)]
        # As long as ours, however much the windows differ.
        arguments += ["-p", str(int(1000 * load.seconds / _WINDOWS)), "-r", str(_WINDOWS), "-s", "999"]
        ended = _run(program, arguments)
        if ended.returncode:
            raise RuntimeError(f"perf_analyzer: {(ended.stderr or ended.stdout).strip()[-300:]}")
        with report.open(encoding="utf-8") as rows:
            return float(next(csv.DictReader(rows))["Inferences/Second"])


def _run(program: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"LD_LIBRARY_PATH": str(program.parents[1] / "lib")}
    return subprocess.run([program, *arguments], env=variables, capture_output=True, text=True, check=False)


def _triton_libraries() -> Path:
    found = find_spec("pytriton")
    return Path(found.origin).parents[1] / "nvidia_pytriton.libs" if found and found.origin else Path("missing")
