"""The parts of a configuration for GPUs: batches, ONNX Runtime's CUDA options, and TensorRT.

A machine without a GPU loads these configurations, too, and ignores these parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tritonclient.grpc import model_config_pb2 as pb

if TYPE_CHECKING:
    from ..spec import NetworkPlan, Plan

# Parameters of the step that decodes with DALI; see `preprocess/dali_pipeline.py`.
DALI_PARAMETERS = {
    "hw_decoder_load": 0.9,
    "fancy_upsampling": True,
    "threads": 4,
    # Where the pixels are passed to the networks. On the GPU, Triton copies each photo's once, into memory that both
    # processes have open. By way of the CPU they are copied several times there, and to the GPU for each network; `cpu`
    # is for machines where processes cannot share the GPU's memory.
    "pixels_on": "gpu",
}
_PRECISION_MODES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}
_TENSORRT_WORKSPACE = 1 << 30


def warm_up_sizes(plan: Plan) -> list[int]:
    """The batch sizes to run before the first request: all that the networks run with, if these are fixed.

    Otherwise more of them would not help: a convolution keeps its plan for the last size only, and a TensorRT engine
    covers all sizes.
    """
    return list(plan.limits.batch_sizes or sorted({1, plan.limits.max_batch_size}))


def cuda_parameters(plan: Plan) -> dict[str, str]:
    """Options of ONNX Runtime's CUDA provider, as parameters of a model.

    The official backend uses its own defaults for options that are missing here, even if an accelerator sets them. It
    ignores `prefer_nhwc`, which made ResNet-18 in fp16 a third faster on an H100. It would pass on an option of an
    accelerator `cuda`, but before 1.20 ONNX Runtime is built without NHWC by default, and may not load the model then.
    """
    return {
        # HEURISTIC. 0 tries every algorithm for each batch size, which takes seconds; 2 is slow at run time.
        "cudnn_conv_algo_search": "1",
        "gpu_mem_limit": str(plan.limits.max_gpu_bytes),
        # Allocates exactly the requested size, not the next power of two.
        "arena_extend_strategy": "1",
        "do_copy_in_default_stream": "1",
    } | ({"prefer_nhwc": "1"} if plan.precision == "fp16" else {})


def tensorrt(plan: Plan, network: NetworkPlan) -> Any:
    """The optimisation policy that runs a network with TensorRT, with the names of the official backend."""
    smallest, largest = (
        f"pixels:{batch}x{network.view.height}x{network.view.width}x3" for batch in (1, plan.limits.max_batch_size)
    )
    parameters = {
        "precision_mode": _PRECISION_MODES[plan.precision],
        "max_workspace_size_bytes": str(_TENSORRT_WORKSPACE),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": plan.engine_cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": plan.engine_cache,
        # With these, one engine is built at the start; without, another one for each larger batch.
        "trt_profile_min_shapes": smallest,
        "trt_profile_opt_shapes": largest,
        "trt_profile_max_shapes": largest,
    }
    accelerators = pb.ModelOptimizationPolicy.ExecutionAccelerators
    return pb.ModelOptimizationPolicy(
        execution_accelerators=accelerators(
            gpu_execution_accelerator=[accelerators.Accelerator(name="tensorrt", parameters=parameters)]
        )
    )
