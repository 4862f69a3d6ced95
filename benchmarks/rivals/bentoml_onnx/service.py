"""BentoML with a worker for each core, and adaptive batching."""

import os
from pathlib import Path

import bentoml
import numpy as np
from reading import answers, infer, pixels, sessions


@bentoml.service(workers=int(os.environ["BENCHMARK_WORKERS"]))
class Analyzer:
    def __init__(self) -> None:
        self.loaded = sessions()

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=10_000)
    def analyze(self, image: list[Path]) -> list[dict]:
        return answers(infer(self.loaded, np.stack([pixels(photo.read_bytes()) for photo in image])))
