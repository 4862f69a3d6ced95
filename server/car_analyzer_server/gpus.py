"""Counts GPUs, and detects repositories that do not suit them."""

from __future__ import annotations

import os
from pathlib import Path

from .repository import read_config, read_networks

_DEVICES = Path("/dev")
# Triton 25.04: the first whose ONNX Runtime backend passes an instance's GPU to TensorRT.
_FIXED = (2, 57)
# Parameter of networks that were exported for GPUs; the sizes that their batches are padded to.
_BATCH_SIZES = "batch_sizes"


def visible_gpus() -> int:
    """The number of GPUs that are visible to this process, within CUDA_VISIBLE_DEVICES."""
    devices = len(list(_DEVICES.glob("nvidia[0-9]*")))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return devices if listed is None else min(devices, len([name for name in listed.split(",") if name.strip()]))


def unsuitable_for_gpu(repository: Path) -> str | None:
    """Returns a warning if there is a GPU, and networks were exported without fixed batch sizes for it.

    Args:
        repository: The model repository.

    Raises:
        RepositoryError: A configuration is broken.
    """
    if not visible_gpus():
        return None
    names = [
        config.name
        for config in read_networks(repository)
        if _BATCH_SIZES not in config.parameters
        and not config.optimization.execution_accelerators.gpu_execution_accelerator
        and any(group.kind != group.KIND_CPU for group in config.instance_group)
    ]
    if not names:
        return None
    return (
        f"There is a GPU here, but networks ({', '.join(names)}) were exported for any machine, or by an older "
        "car-analyzer: on a GPU, ONNX Runtime plans their convolutions anew whenever the batch size changes. Export "
        "with --target gpu."
    )


def engines_on_one_gpu(repository: Path, version: str) -> str | None:
    """Returns a warning if the official ONNX Runtime backend would run TensorRT on only one of several GPUs.

    Args:
        repository: The model repository.
        version: Triton's version, such as `2.51.0`.

    Raises:
        RepositoryError: A configuration is broken.
    """
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
    if (count := visible_gpus()) < 2 or numbers >= _FIXED:
        return None
    models = [file.parent.name for file in sorted(repository.glob("*/config.pbtxt"))]
    accelerators = [read_config(repository, model).optimization.execution_accelerators for model in models]
    if not any(one.name == "tensorrt" for accelerator in accelerators for one in accelerator.gpu_execution_accelerator):
        return None
    return (
        f"Triton {version} runs all TensorRT engines on the first of these {count} GPUs; start one Triton for each "
        "GPU, with CUDA_VISIBLE_DEVICES, or use Triton 25.04 or newer."
    )
