"""The Triton configuration of each model, built from Triton's own protobuf classes.

Each configuration names one version, and the ensemble's names the version of each step. So every answer comes from one
version, whatever else is in the repository or loaded. Settings outside the configuration are in the version's folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from ..spec import ENSEMBLE, EXPLAIN, PREPROCESS, describe_head
from . import gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from car_analyzer.drift import Reference

    from ..preprocess.view import View
    from ..spec import HeadPlan, NetworkPlan, Plan

    # Head name → the shape of its class activation map, [logits, height, width]; heads without one are missing.
    Maps = Mapping[str, list[int]]

# Parameter of the official ONNX Runtime backend.
INTRA_OP_THREADS = "intra_op_thread_count"
BATCH_SIZES = "batch_sizes"
# Parameter of the ensemble, and the figures in its record.
DRIFT = "drift"
SMALLEST_PREFERRED = {"any": 4, "gpu": 8}
HEADER = "# Written by `car-analyzer export`; the next export overwrites it.\n"


def config_texts(
    plan: Plan, version: int, export_id: str, maps: Maps | None = None, drift: Reference | None = None
) -> dict[str, str]:
    """The config.pbtxt of every model for a version: model name → text. `EXPLAIN` is among them if there are maps."""
    maps = maps or {}
    configs = [
        _preprocess(plan, version),
        *(_network(plan, network, version, maps) for network in plan.networks),
        with_drift(_ensemble(ENSEMBLE, plan, version, export_id, maps), drift),
        *([_ensemble(EXPLAIN, plan, version, export_id, maps)] if maps else []),
    ]
    return {config.name: as_text(config) for config in configs}


def with_drift(ensemble: Any, drift: Reference | None) -> Any:
    """Has a configuration tell gateways what they compare photos with; without it, the configuration is unchanged."""
    if drift is not None:
        ensemble.parameters[DRIFT].string_value = drift.to_json()
    return ensemble


def as_text(config: Any) -> str:
    """A configuration in the format of config.pbtxt."""
    return HEADER + str(text_format.MessageToString(config))


def heads_text(plan: Plan) -> str:
    """The heads' contract for clients, as JSON: head → how to read its logits."""
    return json.dumps(
        {
            head.name: describe_head(head) | {"exif_rotation": network.view.exif_rotation}
            for head, network in plan.heads()
        }
    )


def explain_text(plan: Plan, maps: Maps) -> str:
    """How clients explain each head's answer, as JSON: by its map, or by sending the network changed pixels."""
    return json.dumps(
        {
            head.name: {
                "network": network.name,
                "output": network.output_name(head),
                "pixels": plan.views[network.view],
                "view": asdict(network.view),
                "map": f"{head.name}_map" if head.name in maps else None,
            }
            for head, network in plan.heads()
        }
    )


def label_texts(plan: Plan) -> dict[str, dict[str, str]]:
    """The label files, one label per line in logit order: model name → file name → text."""
    texts: dict[str, dict[str, str]] = {}
    for head, network in plan.heads():
        # One logit is Triton's class 0: it gets the label that a high logit means.
        labels = head.labels[1:] if head.activation == "sigmoid" else head.labels
        text = "".join(f"{label}\n" for label in labels)
        texts.setdefault(network.name, {})[_labels_file(network, head)] = text
        texts.setdefault(ENSEMBLE, {})[f"{head.name}_labels.txt"] = text
    return texts


def views_text(plan: Plan) -> str:
    """The views of the preprocess step, as JSON: output → view."""
    return json.dumps({name: asdict(view) for view, name in plan.views.items()}, indent=2) + "\n"


def _preprocess(plan: Plan, version: int) -> Any:
    parameters: dict[str, Any] = {
        "max_bytes": plan.limits.max_bytes,
        "max_pixels": plan.limits.max_pixels,
        "networks": sorted({network.name for _, network in plan.heads()}),
    }
    # Without a count, Triton itself starts one process, and `serve` as many as suit its machine.
    group = pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU, count=plan.limits.preprocess_instances)
    if with_dali := plan.preprocess == "dali":
        parameters |= gpu.DALI_PARAMETERS
        group = pb.ModelInstanceGroup(count=plan.limits.preprocess_instances)
    return pb.ModelConfig(
        name=PREPROCESS,
        backend="python",
        version_policy=_only(version),
        max_batch_size=plan.limits.max_batch_size,
        input=[pb.ModelInput(name="image", data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            pb.ModelOutput(name=name, data_type=pb.TYPE_UINT8, dims=_dims(view)) for view, name in plan.views.items()
        ],
        instance_group=[group],
        parameters={name: pb.ModelParameter(string_value=json.dumps(value)) for name, value in parameters.items()},
        # Bounds the queue of the whole ensemble, with `preprocess/backlog.py`. Later steps cannot: Triton before 26.03
        # never answers the requests that it rejects there.
        # One request per batch: photos are decoded one by one anyway, so a batch would only leave other instances idle,
        # and a request that the Python backend cannot read (a string longer than its data) fails its whole batch.
        # DALI decodes the photos of a batch together.
        dynamic_batching=_batching(
            plan,
            preferred_batch_size=preferred_batch_sizes(plan) if with_dali else (1,),
            max_queue_delay_microseconds=plan.limits.queue_delay_us if with_dali else 0,
            max_queue_size=plan.limits.max_queue_size,
            allow_timeout_override=True,
        ),
    )


def _network(plan: Plan, network: NetworkPlan, version: int, maps: Maps) -> Any:
    on_gpu = plan.target == "gpu"
    # ONNX Runtime would plan memory for each batch size, and keep all of these plans.
    parameters = {"enable_mem_pattern": "0"} | (gpu.cuda_parameters(plan) if on_gpu else {})
    if on_gpu or plan.limits.batch_sizes:
        # For `serve`, which warns if they are missing where there is a GPU; backends ignore it.
        parameters[BATCH_SIZES] = json.dumps(plan.limits.batch_sizes or ())
    if plan.limits.network_threads:
        parameters[INTRA_OP_THREADS] = str(plan.limits.network_threads)
    return pb.ModelConfig(
        name=network.name,
        backend="onnxruntime",
        version_policy=_only(version),
        max_batch_size=plan.limits.max_batch_size,
        # The format is for clients such as NVIDIA's image_client.py; backends ignore it.
        input=[
            pb.ModelInput(
                name="pixels",
                data_type=pb.TYPE_UINT8,
                format=pb.ModelInput.FORMAT_NHWC,
                dims=_dims(network.view),
            )
        ],
        output=[
            _logits(network.output_name(head), head, f"{version}/{_labels_file(network, head)}")
            for head in network.heads
        ]
        + [_map(network.map_name(head), maps[head.name]) for head in network.heads if head.name in maps],
        # Without a kind, Triton uses a GPU if there is one. Without a count, it would start two instances on a CPU.
        instance_group=[pb.ModelInstanceGroup(count=plan.limits.network_instances)],
        parameters={name: pb.ModelParameter(string_value=value) for name, value in parameters.items()},
        optimization=gpu.tensorrt(plan, network) if plan.accelerator == "tensorrt" else None,
        # If a head is slower than decoding, the timeout bounds its queue.
        dynamic_batching=_batching(
            plan,
            preferred_batch_size=preferred_batch_sizes(plan),
            max_queue_delay_microseconds=plan.limits.queue_delay_us,
        ),
        model_warmup=[_warmup(network.view, batch) for batch in gpu.warm_up_sizes(plan)],
    )


def _ensemble(name: str, plan: Plan, version: int, export_id: str, maps: Maps) -> Any:
    about = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plan.about.items()}
    parameters = {"heads": heads_text(plan), "explain": explain_text(plan, maps), "export_id": export_id, **about}
    with_maps = maps if name == EXPLAIN else {}
    steps = [
        pb.ModelEnsembling.Step(
            model_name=PREPROCESS,
            model_version=version,
            input_map={"image": "image"},
            output_map={pixels: pixels for pixels in plan.views.values()},
        ),
        *(
            pb.ModelEnsembling.Step(
                model_name=network.name,
                model_version=version,
                input_map={"pixels": plan.views[network.view]},
                output_map={
                    **{network.output_name(head): f"{head.name}_logits" for head in network.heads},
                    **{network.map_name(head): f"{head.name}_map" for head in network.heads if head.name in with_maps},
                },
            )
            for network in plan.networks
        ),
    ]
    return pb.ModelConfig(
        name=name,
        platform="ensemble",
        version_policy=_only(version),
        max_batch_size=plan.limits.max_batch_size,
        input=[pb.ModelInput(name="image", data_type=pb.TYPE_STRING, dims=[1])],
        output=[_logits(f"{head.name}_logits", head, f"{version}/{head.name}_labels.txt") for head, _ in plan.heads()]
        + [_map(f"{head.name}_map", with_maps[head.name]) for head, _ in plan.heads() if head.name in with_maps],
        parameters={name: pb.ModelParameter(string_value=value) for name, value in parameters.items()},
        ensemble_scheduling=pb.ModelEnsembling(step=steps),
    )


def _map(name: str, shape: list[int]) -> Any:
    return pb.ModelOutput(name=name, data_type=pb.TYPE_FP32, dims=shape)


def _logits(name: str, head: HeadPlan, labels_file: str) -> Any:
    return pb.ModelOutput(name=name, data_type=pb.TYPE_FP32, dims=[head.logits], label_filename=labels_file)


def _labels_file(network: NetworkPlan, head: HeadPlan) -> str:
    return "labels.txt" if len(network.heads) == 1 else f"{head.name}_labels.txt"


def _only(version: int) -> Any:
    return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[version]))


def _batching(
    plan: Plan, preferred_batch_size: tuple[int, ...] = (), max_queue_delay_microseconds: int = 0, **policy: Any
) -> Any:
    return pb.ModelDynamicBatching(
        preferred_batch_size=preferred_batch_size,
        max_queue_delay_microseconds=max_queue_delay_microseconds,
        default_queue_policy=pb.ModelQueuePolicy(
            default_timeout_microseconds=round(plan.limits.max_queue_seconds * 1e6),
            timeout_action=pb.ModelQueuePolicy.REJECT,
            **policy,
        ),
    )


def preferred_batch_sizes(plan: Plan) -> tuple[int, ...]:
    """The fixed batch sizes, or powers of two up to the largest batch. Triton waits for one of them, but not for long.

    Without them, a batch takes all queued requests, and the throughput of two ResNet-18 on two cores for eight callers
    was 2 to 4 % lower. A possible reason, not examined: callers synchronise and leave the networks idle together.

    1 is not among them, unless it is the only one: Triton would not wait at all.
    """
    if plan.limits.batch_sizes:
        return tuple(size for size in plan.limits.batch_sizes if size > 1) or (1,)
    sizes, size = [], SMALLEST_PREFERRED[plan.target]
    while size < plan.limits.max_batch_size:
        sizes.append(size)
        size *= 2
    return (*sizes, plan.limits.max_batch_size)


def _warmup(view: View, batch: int) -> Any:
    pixels = pb.ModelWarmup.Input(data_type=pb.TYPE_UINT8, dims=_dims(view), random_data=True)
    return pb.ModelWarmup(name=f"batch {batch}", batch_size=batch, inputs={"pixels": pixels})


def _dims(view: View) -> list[int]:
    return [view.height, view.width, 3]
