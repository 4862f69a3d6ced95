"""Chooses ONNX Runtime's execution providers for a model, by its configuration and the available hardware.

The names are those of Triton's official ONNX Runtime backend, so that the same configuration works with both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = {CPU: "the CPU", CUDA: "CUDA", TENSORRT: "TensorRT"}
_GPU_DRIVER = Path("/dev/nvidiactl")

_CUDA_CHOICES = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}
# The official backend ignores `prefer_nhwc` as a parameter.
_CUDA_VALUES = ("gpu_mem_limit", "do_copy_in_default_stream", "prefer_nhwc")
_PRECISION_FLAGS = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}


@dataclass(frozen=True)
class Choice:
    """The chosen execution providers.

    Attributes:
        providers: For an `InferenceSession`, in order of preference.
        warnings: Requested options that are not available, in sentences.
        engine_cache: The folder for TensorRT engines; None if they are not cached, or TensorRT is not used.
    """

    providers: list[tuple[str, dict[str, str]]]
    warnings: list[str] = field(default_factory=list)
    engine_cache: Path | None = None

    @property
    def best(self) -> str:
        """The preferred provider."""
        return self.providers[0][0]


def choose(config: dict[str, Any], device: int | None, available: list[str]) -> Choice:
    """Chooses providers.

    Args:
        config: The model's configuration.
        device: The GPU that Triton assigned to this instance; None for the CPU.
        available: The providers in this build of ONNX Runtime.

    Raises:
        ValueError: The configuration has an unknown accelerator or precision.
    """
    wanted = _accelerators(config)
    providers: list[tuple[str, dict[str, str]]] = [(CPU, {})]
    if device is None:
        return Choice(providers, _reasons_for_the_cpu(wanted))
    if CUDA not in available:
        return Choice(
            providers,
            ["The GPU is not used: this ONNX Runtime has no CUDA; the CPU is. For CUDA, install onnxruntime-gpu."],
        )
    providers.insert(0, (CUDA, _cuda_options(config) | wanted.get(CUDA, {}) | {"device_id": str(device)}))
    if TENSORRT not in wanted:
        return Choice(providers)
    if TENSORRT not in available:
        return Choice(providers, ["TensorRT is not used: this ONNX Runtime has none; CUDA is."])
    options = _tensorrt_options(wanted[TENSORRT])
    cache, warnings = _engine_cache(options)
    providers.insert(0, (TENSORRT, options | {"device_id": str(device)}))
    return Choice(providers, warnings, cache)


def _reasons_for_the_cpu(wanted: dict[str, dict[str, str]]) -> list[str]:
    if TENSORRT in wanted:
        return ["TensorRT is not used: there is no GPU for it; the CPU is."]
    if not _GPU_DRIVER.exists():
        return []
    return [
        "The GPU is not used: Triton assigned the CPU to this instance, because of KIND_CPU in its `instance_group`, "
        "or because it found no GPU that it can use."
    ]


def _accelerators(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Provider → its parameters in the configuration."""
    policy = config.get("optimization", {}).get("execution_accelerators", {})
    found = {}
    for accelerator in policy.get("gpu_execution_accelerator", []):
        provider = {"cuda": CUDA, "tensorrt": TENSORRT}.get(accelerator["name"])
        if provider is None:
            raise ValueError(f"The accelerator '{accelerator['name']}' is unknown; use 'cuda' or 'tensorrt'.")
        found[provider] = dict(accelerator.get("parameters", {}))
    return found


def _cuda_options(config: dict[str, Any]) -> dict[str, str]:
    given = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    options = {name: given[name] for name in _CUDA_VALUES if name in given}
    for name, choices in _CUDA_CHOICES.items():
        if name in given:
            if given[name] not in map(str, range(len(choices))):
                raise ValueError(f"The parameter '{name}' is {given[name]!r}; it can be 0 to {len(choices) - 1}.")
            options[name] = choices[int(given[name])]
    return options


def _tensorrt_options(given: dict[str, str]) -> dict[str, str]:
    options = {_TENSORRT_NAMES.get(name, name): value for name, value in given.items() if name != "precision_mode"}
    mode = given.get("precision_mode", "FP32")
    if mode not in _PRECISION_FLAGS:
        raise ValueError(f"TensorRT has no precision_mode '{mode}'; it can be {', '.join(_PRECISION_FLAGS)}.")
    return options | _PRECISION_FLAGS[mode]


def _engine_cache(options: dict[str, str]) -> tuple[Path | None, list[str]]:
    """Creates the folder for engines. If that fails, engines are built at every start."""
    if options.get("trt_engine_cache_enable") not in ("1", "true"):
        return None, []
    folder = Path(options.get("trt_engine_cache_path") or ".")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        options["trt_engine_cache_enable"] = options["trt_timing_cache_enable"] = "0"
        reason = f"the folder {folder} cannot be written ({error.strerror})"
        return None, [f"TensorRT's engines are not cached, and are built at every start: {reason}."]
    return folder, []
