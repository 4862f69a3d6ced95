"""Triton's own load generator, perf_analyzer: it measures the service independently of our own load, and costs less.

The wheels of `perf-analyzer` need a newer glibc than Debian 12 has; the last wheels of `tritonclient` that contain the
program do not. Two libraries that it needs come with Triton's wheel.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .clients import element
from .load import Answers
from .systems import prepare

if TYPE_CHECKING:
    from .load import Load

_LIBRARIES = {"libb64.so.0d": "libb64-*", "libcudart.so.12": "libcudart-*"}
_FIGURES = ("Inferences/Second", "p50 latency", "p99 latency")  # columns of its report
_WINDOWS = 3  # it measures at least three times
_NO_REQUEST, _LONGER = "No valid requests recorded", (1, 4, 16)  # it needs an answer in each window


@cache
def find_program(environments: Path) -> Path | None:
    """Finds it beside the running Python, or installs it, once; None if it does not run, which is printed."""
    home = environments / "perf_analyzer"
    program = Path(sys.executable).with_name("perf_analyzer")
    if not program.is_file():
        if not prepare("perf_analyzer", environments):
            return None
        program = home / "bin" / "perf_analyzer"
    (home / "lib").mkdir(parents=True, exist_ok=True)
    for name, pattern in _LIBRARIES.items():
        for file in _triton_libraries().glob(pattern):
            (home / "lib" / name).unlink(missing_ok=True)
            (home / "lib" / name).symlink_to(file)
    ended = _run(program, home, ["--version"])
    if ended.returncode:
        print(f"left out: perf_analyzer does not run: {ended.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return program


def measure(program: Path, environments: Path, load: Load, timeout: float | None = None) -> Answers:
    """Measures a Triton with the photos, callers (or rate) and seconds of a load for the clients `grpc` or `http`.

    Raises:
        RuntimeError: It measured nothing, or a request failed, or it took longer than `timeout` seconds.
    """
    contents = [base64.b64encode(element(photo.read_bytes())).decode() for photo in sorted(Path(load.photos).iterdir())]
    data = {"data": [{"image": {"content": {"b64": content}, "shape": [1]}} for content in contents]}
    with tempfile.TemporaryDirectory() as folder:
        given, report = Path(folder) / "data.json", Path(folder) / "report.csv"
        given.write_text(json.dumps(data), encoding="utf-8")
        arguments = ["-m", "car_analyzer", "-u", urlsplit(load.url).netloc, "-i", load.client]
        arguments += ["--input-data", str(given), "-f", str(report)]
        if load.rate:
            # Asynchronous: its few threads must not wait for answers.
            arguments += ["--request-rate-range", f"{load.rate:.2f}", "-a"]
        else:
            arguments += ["--concurrency-range", str(load.clients)]
        # As long as ours, however much the windows differ.
        arguments += ["-r", str(_WINDOWS), "-s", "999", "-p"]
        for longer in _LONGER:
            before, seconds = _children_cpu(), longer * load.seconds
            window = str(int(1000 * seconds / _WINDOWS))
            try:
                ended = _run(program, environments / "perf_analyzer", [*arguments, window], timeout)
            except subprocess.TimeoutExpired:
                raise RuntimeError("perf_analyzer did not end within the time left") from None
            spent = _children_cpu() - before
            if not ended.returncode or _NO_REQUEST not in ended.stdout + ended.stderr:
                break
        if ended.returncode:
            raise RuntimeError(f"perf_analyzer: {(ended.stderr or ended.stdout).strip()[-300:]}")
        with report.open(encoding="utf-8") as rows:
            found = next(csv.DictReader(rows))
    rate, *latencies = (float(found[name]) for name in _FIGURES)
    p50, p99 = (latency / 1000 for latency in latencies)
    photos = round(rate * seconds)
    return Answers(rate, p50, p99, [], photos, 1000 * spent / photos if photos else 0.0)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(
    program: Path, home: Path, arguments: list[str], timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"LD_LIBRARY_PATH": str(home / "lib")}
    command = [str(program), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout, check=False)


def _triton_libraries() -> Path:
    found = find_spec("pytriton")
    return Path(found.origin).parents[1] / "nvidia_pytriton.libs" if found and found.origin else Path("missing")
