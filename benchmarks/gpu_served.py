"""What a whole Triton does on a GPU: pixels in, and JPEGs in, at its peak and at half of it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from car_analyzer_server import Server, Settings
from car_analyzer_server.repository import read_config

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADMIN_KEY = "benchmark"


@contextlib.contextmanager
def served(repository: Path, decoders: int, *, pixels_on_cpu: bool = False) -> Iterator[Server]:
    """Serves a repository on free ports.

    Args:
        repository: It is not written to.
        decoders: How many processes decode with Pillow.
        pixels_on_cpu: Have the DALI step copy its pixels into the memory of the machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model_repository"
        shutil.copytree(repository, copy)
        config = read_config(copy, "preprocess")
        if "pixels_on" in config.parameters:
            config.parameters["pixels_on"].string_value = json.dumps("cpu" if pixels_on_cpu else "gpu")
        else:
            config.instance_group[0].count = decoders
        text = text_format.MessageToString(config)
        (copy / "preprocess" / "config.pbtxt").write_text(text, encoding="utf-8")
        settings = Settings(copy, http_port=0, grpc_port=0, metrics_port=0, admin_key=_ADMIN_KEY)
        with Server(settings) as server:
            yield server


def pixels_in(server: Server, batch: int, clients: int, processes: int, seconds: float) -> dict[str, Any]:
    """Both heads asked about batches of pixels in shared memory; photos a second, milliseconds a batch."""
    found = _load(server, processes, [f"--batch={batch}", f"--clients={clients}", f"--seconds={seconds}"])
    found["rate"] *= batch
    return found


def jpeg_in(
    server: Server, photos: list[bytes], clients: int, processes: int, seconds: float
) -> list[tuple[str, dict[str, Any]]]:
    """The ensemble asked about one JPEG at a time: as fast as it can, and then at half of that rate."""
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        file.write(pickle.dumps(photos))
        file.flush()
        options = [f"--photos={file.name}", f"--clients={clients}", f"--seconds={seconds}"]
        peak = _load(server, processes, options)
        found = [("at its peak", peak)]
        if peak["rate"] > 0:
            half = _load(server, processes, [*options, f"--rate={peak['rate'] / 2 / processes}"])
            found.append(("at half of its peak", half))
        return found


def _load(server: Server, processes: int, options: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu_load", server.grpc_url, *options]
    running = [
        subprocess.Popen(
            command, env=os.environ | {"CAR_ANALYZER_ADMIN_KEY": _ADMIN_KEY}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    answers = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("a process of the load ended with an error")
    loads = [json.loads(answer) for answer in answers]
    waited = sorted(each for load in loads for each in load["latencies_ms"])
    errors = [error for load in loads for error in load["errors"]]
    if not waited:
        raise RuntimeError(f"no answer came: {(errors or ['no error either'])[0]}")
    return {
        "rate": sum(len(load["latencies_ms"]) / load["seconds"] for load in loads),
        "p50": waited[len(waited) // 2],
        "p99": waited[int(len(waited) * 0.99)],
        "errors": len(errors),
    }
