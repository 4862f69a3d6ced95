"""Exports the demo models, starts Triton, analyses the sample photos, and stops.

Prints one JSON object for each photo; progress goes to stderr. Leaves nothing behind, however it ends.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from car_analyzer_server import Server, ServingError, Settings

EXAMPLES = Path(__file__).parent


def main() -> int:
    """Runs the demo; returns its exit code."""
    # SIGTERM raises KeyboardInterrupt, so that Triton is stopped and the folder removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Not `model_repository`: that is for the user's own models.
    with tempfile.TemporaryDirectory(prefix="car-analyzer-demo-") as repository:
        print("Exporting the demo models ...", file=sys.stderr)
        exported = _car_analyzer("export", str(EXAMPLES / "demo.toml"), "--repository", repository, stdout=sys.stderr)
        if exported != 0:
            return exported
        print("Starting Triton ...", file=sys.stderr)
        # Free ports, so that the demo runs beside anything else.
        with Server(Settings(Path(repository), http_port=0, grpc_port=0, metrics_port=0)) as server:
            photos = sorted(str(photo) for photo in (EXAMPLES / "photos").glob("*.jpg"))
            return _car_analyzer("analyze", *photos, "--url", server.grpc_url, stdout=sys.stdout)


def _car_analyzer(*arguments: str, stdout: IO[str]) -> int:
    return subprocess.run([sys.executable, "-m", "car_analyzer", *arguments], stdout=stdout, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServingError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
