"""Starts Ray on this machine only, in the mode for high throughput that its documentation has, until it is stopped."""

import os
import signal

os.environ |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}

import ray
from app import app
from ray import serve

signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCHMARK_PORT"])})
serve.run(app, blocking=True)
