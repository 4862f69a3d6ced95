"""A process that Triton may have given up on ends before it answers for another photo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "export" / "car_analyzer_export" / "preprocess"
STAND_IN = ROOT / "server" / "car_analyzer_server" / "backends" / "onnxruntime"
# Told "go on" only when whatever happens to it has happened.
WORK = """
import sys, time, guard
{before}
begun = guard.begin()
print("begun", flush=True)
sys.stdin.readline()
{after}
guard.end(begun)
"""


def run(before: str = "", after: str = "", *, held_up: float = 0.0, supervised: str = "1") -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK.format(before=before, after=after)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=GUARD,
        env=os.environ | {"CAR_ANALYZER_SUPERVISED": supervised},
    )
    assert process.stdout is not None
    if process.stdout.readline() and held_up:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(held_up)
        os.kill(process.pid, signal.SIGCONT)
    process.communicate("go on\n", timeout=30)
    return process.returncode


def test_a_request_that_was_not_disturbed_is_answered() -> None:
    assert run() == 0
    # Working for long is not being held up.
    assert run(after="end = time.process_time() + 1.5\nwhile time.process_time() < end: pass") == 0


def test_a_process_that_was_held_up_does_not_answer() -> None:
    assert run(held_up=1.0) == -signal.SIGKILL


def test_a_process_that_nobody_would_replace_goes_on() -> None:
    assert run(held_up=1.0, supervised="0") == 0


def test_nor_when_the_clock_was_set_forwards() -> None:
    jump = "real = time.time\ntime.time = lambda: real() + {}\ntime.sleep(0.3)"
    assert run(after=jump.format(3600)) == -signal.SIGKILL
    # Set backwards, Triton only waits for longer.
    assert run(after=jump.format(-3600)) == 0


def test_the_stand_in_has_the_same() -> None:
    assert (GUARD / "guard.py").read_bytes() == (STAND_IN / "guard.py").read_bytes()
