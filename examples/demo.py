"""Starts Triton on the demo models, analyses the sample photos, and stops.

    python examples/demo.py REPOSITORY

Prints one JSON object for each photo; progress and the next steps go to stderr. `make demo` exports the models first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from car_analyzer_server import Server, ServingError, Settings

PHOTOS = Path(__file__).parent / "photos"
NEXT_STEPS = """
The demo models are in {repository}. Next:
  make serve REPOSITORY={repository}
      Serves them, with a page for your own photos at http://localhost:5000, until Ctrl-C.
  {command} analyze {photos}/*.jpg
      In a second shell: analyses photos with them.
  {command} export --cleanliness cleanliness_model.pth --condition condition_model.pth
      Exports your own two models into model_repository; then `make serve` serves those.
`{command} serve --repository {repository}` starts Triton alone, without the page.
"""


def main(repository: Path) -> int:
    """Runs the demo; returns its exit code."""
    # SIGTERM raises KeyboardInterrupt, so that Triton is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Starting Triton ...", file=sys.stderr)
    # Free ports, so that the demo runs beside anything else.
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)) as server:
        photos = sorted(str(photo) for photo in PHOTOS.glob("*.jpg"))
        analyze = [sys.executable, "-m", "car_analyzer", "analyze", *photos, "--url", server.grpc_url]
        code = subprocess.run(analyze, check=False).returncode
    if code == 0:
        command = os.path.relpath(Path(sys.executable).with_name("car-analyzer"))
        text = NEXT_STEPS.format(repository=repository, command=command, photos=os.path.relpath(PHOTOS))
        print(text, file=sys.stderr, end="")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ServingError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
