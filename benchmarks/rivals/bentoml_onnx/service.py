"""BentoML with a worker for each core."""

import os
from pathlib import Path

import bentoml
from reading import answer, infer, pixels, sessions


@bentoml.service(workers=int(os.environ["BENCHMARK_WORKERS"]))
class Analyzer:
    def __init__(self) -> None:
        self.loaded = sessions()

    @bentoml.api
    def analyze(self, image: Path) -> dict:
        return answer({head: rows[0] for head, rows in infer(self.loaded, pixels(image.read_bytes())[None]).items()})
