"""How many GPUs there are, and what a Triton cannot do with several of them."""

from __future__ import annotations

import os
from pathlib import Path

from .repository import read_config

_DEVICES = Path("/dev")
# Of Triton 25.04, whose ONNX Runtime backend was the first to tell TensorRT on which GPU an instance is.
_MENDED = (2, 57)


def visible_gpus() -> int:
    """The GPUs that this process may use: those that the system shows it, and CUDA_VISIBLE_DEVICES leaves."""
    there = len(list(_DEVICES.glob("nvidia[0-9]*")))
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if named is None else min(there, len([name for name in named.split(",") if name.strip()]))


def engines_on_one_gpu(repository: Path, version: str) -> str | None:
    """What is wrong with TensorRT on several GPUs under the official ONNX Runtime backend, as a sentence.

    Args:
        repository: The model repository.
        version: Triton's, such as `2.51.0`.

    Raises:
        RepositoryError: A configuration is broken.
    """
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
    if (count := visible_gpus()) < 2 or numbers >= _MENDED:
        return None
    models = [file.parent.name for file in sorted(repository.glob("*/config.pbtxt"))]
    accelerators = [read_config(repository, model).optimization.execution_accelerators for model in models]
    if not any(one.name == "tensorrt" for accelerator in accelerators for one in accelerator.gpu_execution_accelerator):
        return None
    return (
        f"Triton {version} runs all TensorRT engines on the first of these {count} GPUs; start one Triton for each "
        "GPU, with CUDA_VISIBLE_DEVICES, or take Triton 25.04 or newer."
    )
