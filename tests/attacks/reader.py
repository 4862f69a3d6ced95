"""Reads checkpoints under a limit of memory and time, as a process of its own: a crash shows which file it was.

Takes the limits and the paths as arguments; prints a line of JSON for each path before and after it is read.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch  # noqa: F401 - takes most of the address space, before the limit counts

from car_analyzer_export.checkpoints import read_checkpoint


def main(mebibytes: int, seconds: int, paths: list[str]) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (mebibytes << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for path in paths:
        print(json.dumps({"path": path}), flush=True)
        start = time.process_time()
        try:
            outcome, message = "read", read_checkpoint(Path(path)).container
        except BaseException as error:  # noqa: BLE001 - which one it is is the test
            outcome, message = type(error).__name__, str(error)
        answer = {"outcome": outcome, "message": message, "seconds": time.process_time() - start}
        print(json.dumps({"path": path, **answer}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
