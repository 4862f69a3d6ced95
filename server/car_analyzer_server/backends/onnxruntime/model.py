"""An ONNX Runtime backend in Python, for a Triton without the official one.

Triton loads this file for every model with `backend: "onnxruntime"` (a "Python-based backend"). It runs `model.onnx`
with the onnxruntime package, and supports those settings of the official backend that are listed in `_session_options`
and `accelerators`, so that the same model repository works with both.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import accelerators
import guard
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from bound_session import BoundSession

# The official backend's meaning of `optimization.graph.level`; without it, everything is enabled.
_GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel:
    """One instance of one ONNX model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the model on the device that Triton assigned to this instance."""
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        folder = Path(args["model_repository"]) / args["model_version"]
        file = folder / (config.get("default_model_filename") or "model.onnx")
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        session = _load(file, config, device, args["model_instance_name"])
        on_gpu = session.get_providers()[0] != accelerators.CPU
        self._session = BoundSession(session, "cuda", device) if on_gpu else session
        self._buffers: dict[str, Any] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Runs all requests of a batch together, and splits the outputs into responses."""
        start = guard.begin()
        inputs = {name: [_array(request, name) for request in requests] for name in self._inputs}
        wanted = [request.requested_output_names() for request in requests]
        names = [name for name in self._outputs if any(name in one for one in wanted)]
        outputs = self._session.run(names, {name: self._join(name, arrays) for name, arrays in inputs.items()})
        guard.end(start)
        ends = itertools.accumulate(len(array) for array in inputs[self._inputs[0]][:-1])
        rows = itertools.pairwise([0, *ends, None])
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, output[first:last])
                    for name, output in zip(names, outputs, strict=True)
                    if name in asked
                ]
            )
            for asked, (first, last) in zip(wanted, rows, strict=True)
        ]

    def _join(self, name: str, arrays: list[Any]) -> Any:
        """The rows of all requests as one array. The next batch overwrites it: new memory each time is slower."""
        if len(arrays) == 1:
            return arrays[0]
        rows, first = sum(map(len, arrays)), arrays[0]
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape[1:] != first.shape[1:] or len(buffer) < rows:
            buffer = self._buffers[name] = np.empty((rows, *first.shape[1:]), first.dtype)
        return np.concatenate(arrays, out=buffer[:rows])


def _array(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def _load(file: Path, config: dict[str, Any], device: int | None, name: str) -> Any:
    """Loads a model with the best available provider, and logs which one that is."""
    if device is not None and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries, if they are installed as Python packages
    choice = accelerators.choose(config, device, onnxruntime.get_available_providers())
    log = pb_utils.Logger
    for warning in choice.warnings:
        log.log_warn(f"{name}: {warning}")
    tensorrt = choice.best == accelerators.TENSORRT
    before = _engines(choice.engine_cache)
    if tensorrt:
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt_libs")  # TensorRT's libraries, likewise
        log.log_info(f"{name}: TensorRT loads its engine for {file.name}, or builds it, which takes minutes ...")
    begun = time.monotonic()
    session = onnxruntime.InferenceSession(file, _session_options(config), providers=choice.providers)
    used = session.get_providers()[0]
    if used != choice.best:
        log.log_warn(
            f"{name}: {accelerators.NAMES[choice.best]} cannot be used, since its libraries are missing or do not fit "
            f"this machine; {accelerators.NAMES[used]} is used instead."
        )
    elif tensorrt:
        done = "loaded" if choice.engine_cache is not None and _engines(choice.engine_cache) == before else "built"
        log.log_info(f"{name}: TensorRT {done} its engine in {time.monotonic() - begun:.1f} s")
    log.log_info(f"{name}: {file.name} runs on {accelerators.NAMES[used]}")
    return session


def _engines(folder: Path | None) -> set[Path]:
    return set(folder.glob("*.engine")) if folder is not None else set()


def _session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    # The official backend starts one thread per core for each model; `serve` divides the cores between the models.
    share = int(os.environ.get("CAR_ANALYZER_THREADS", "0"))
    options.intra_op_num_threads = _parameter(config, "intra_op_thread_count", default=share)
    # A spinning thread occupies a core that other models' processes need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.inter_op_num_threads = _parameter(config, "inter_op_thread_count")
    options.enable_cpu_mem_arena = bool(_parameter(config, "enable_mem_arena", default=1))
    options.enable_mem_pattern = bool(_parameter(config, "enable_mem_pattern", default=1))
    options.execution_mode = onnxruntime.ExecutionMode(_parameter(config, "execution_mode"))
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = _GRAPH_LEVELS[level]
    return options


def _parameter(config: dict[str, Any], name: str, default: int = 0) -> int:
    return int(config.get("parameters", {}).get(name, {"string_value": default})["string_value"])
