"""A process that Triton may have given up on ends before it answers for another photo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import PATIENCE_S

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "export" / "car_analyzer_export" / "preprocess"
# Told "go on" only when whatever happens to it has happened.
WORK = """
import sys, time, guard
guard._STALL_S = {limit}
start = guard.begin()
print("begun", flush=True)
sys.stdin.readline()
{after}
guard.end(start)
"""


# Longer than any busy machine holds a process up.
NEVER = 600.0


def jump(*, awake: float = 0, worked: float = 0, clock: float = 0) -> str:
    """Moves the clocks, all at once, by seconds: the monotonic clock, the process's own, and the system's."""
    return f"""
shifts = dict.fromkeys(("monotonic", "process_time", "time"), 0)
for name in shifts:
    setattr(time, name, lambda name=name, real=getattr(time, name): real() + shifts[name])
with guard._watchdog()._lock:
    shifts.update(monotonic={awake}, process_time={worked}, time={clock})
"""


def run(after: str = "", *, limit: float = NEVER, held_up: float = 0.0, supervised: str = "1") -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK.format(after=after, limit=limit)],
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
    process.communicate("go on\n", timeout=PATIENCE_S)
    return process.returncode


def test_a_request_that_was_not_disturbed_is_answered() -> None:
    assert run() == 0
    # Working for long is not being held up.
    assert run(jump(awake=3600, worked=3600, clock=3600)) == 0


def test_a_process_that_was_held_up_does_not_answer() -> None:
    assert run(limit=0.6, held_up=1.0) == -signal.SIGKILL
    assert run(jump(awake=3600, clock=3600)) == -signal.SIGKILL


def test_a_process_that_nobody_would_replace_goes_on() -> None:
    assert run(limit=0.6, held_up=1.0, supervised="0") == 0


def test_nor_when_the_clock_was_set_forwards() -> None:
    assert run(jump(clock=3600)) == -signal.SIGKILL
    # Set backwards, Triton only waits for longer.
    assert run(jump(clock=-3600)) == 0
