"""Ray Serve with a replica for each core."""

import os

from fastapi import FastAPI, File
from ray import serve
from reading import answer, infer, pixels, sessions

api = FastAPI()


@serve.deployment(num_replicas=int(os.environ["BENCHMARK_WORKERS"]), ray_actor_options={"num_cpus": 1})
@serve.ingress(api)
class Analyzer:
    def __init__(self):
        self.loaded = sessions()

    @api.post("/analyze")
    def analyze(self, image: bytes = File()):
        return answer({head: rows[0] for head, rows in infer(self.loaded, pixels(image)[None]).items()})


app = Analyzer.bind()
