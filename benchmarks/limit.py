"""What the machine can do: decode and run both networks in threads of one process. No server, no copies, no callers."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .load import measure
from .rivals.reading import infer, pixels, sessions

if TYPE_CHECKING:
    from .clients import Client


class Direct:
    """Not a caller: it does the work itself."""

    def __init__(self, photos: list[bytes], loaded: dict[str, object]) -> None:
        self._photos = photos
        self._loaded = loaded

    def ask(self, number: int) -> None:
        infer(self._loaded, pixels(self._photos[number])[None])


def main() -> int:
    """Prints the same as `benchmarks.load`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__)
    parser.add_argument("photos", type=Path, help="a pickled list of bytes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=2)
    arguments = parser.parse_args()
    photos = pickle.loads(arguments.photos.read_bytes())  # noqa: S301 - our own, just written
    loaded = sessions()
    workers: list[Client] = [Direct(photos, loaded) for _ in range(arguments.threads)]
    print(json.dumps(measure(workers, len(photos), arguments.warm_up, arguments.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
