"""Ray Serve with a replica for each core, and batches of up to 8."""

import asyncio
import os

import numpy as np
from fastapi import FastAPI, File
from ray import serve
from reading import answers, infer, pixels, sessions

api = FastAPI()


@serve.deployment(
    num_replicas=int(os.environ["BENCHMARK_WORKERS"]), max_ongoing_requests=16, ray_actor_options={"num_cpus": 1}
)
@serve.ingress(api)
class Analyzer:
    def __init__(self):
        self.loaded = sessions()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.001)
    async def infer(self, batch):
        return answers(await asyncio.to_thread(infer, self.loaded, np.stack(batch)))

    @api.post("/analyze")
    async def analyze(self, image: bytes = File()):
        return await self.infer(await asyncio.to_thread(pixels, image))


app = Analyzer.bind()
