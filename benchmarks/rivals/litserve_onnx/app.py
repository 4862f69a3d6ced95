"""LitServe with a worker for each core, batches of up to 8, and its queue for more than 100 requests a second."""

import os

import litserve
from reading import answers, infer, pixels, sessions


class Analyzer(litserve.LitAPI):
    def setup(self, device):
        self.loaded = sessions()

    def decode_request(self, request):
        return pixels(request["image"].file.read())

    def predict(self, batch):
        return answers(infer(self.loaded, batch))


if __name__ == "__main__":
    workers = int(os.environ["BENCHMARK_WORKERS"])
    # With more than 1 ms, a single caller waits longer for company than for the answer.
    api = Analyzer(max_batch_size=8, batch_timeout=0.001, api_path="/analyze")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCHMARK_PORT"]), generate_client_file=False, log_level="warning"
    )
