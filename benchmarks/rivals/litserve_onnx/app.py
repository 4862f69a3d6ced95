"""LitServe with batches of up to 8 and a worker for each core."""

import os

import litserve
import numpy as np
from reading import answer, infer, pixels, sessions


class Analyzer(litserve.LitAPI):
    def setup(self, device):
        self.loaded = sessions()

    def decode_request(self, request):
        return pixels(request["image"].file.read())

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return infer(self.loaded, batch)

    def unbatch(self, output):
        return [{head: rows[i] for head, rows in output.items()} for i in range(len(next(iter(output.values()))))]

    def encode_response(self, output):
        return answer(output)


if __name__ == "__main__":
    workers = int(os.environ["BENCHMARK_WORKERS"])
    api = Analyzer(max_batch_size=8, batch_timeout=0.005, api_path="/analyze")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCHMARK_PORT"]), generate_client_file=False, log_level="warning"
    )
