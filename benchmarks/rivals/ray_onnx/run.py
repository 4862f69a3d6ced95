"""Starts Ray on this machine only, and serves until told to stop."""

import os
import signal

import ray
from app import app
from ray import serve

signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCHMARK_PORT"])})
serve.run(app, blocking=True)
