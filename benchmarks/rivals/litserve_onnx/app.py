"""LitServe with a worker for each core, batches of up to 8, and its queue for more than 100 requests a second."""

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
    api = Analyzer(max_batch_size=8, batch_timeout=0.001, api_path="/analyze")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCHMARK_PORT"]), generate_client_file=False, log_level="warning"
    )
