"""The Triton configuration of each model, built from Triton's own protobuf classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from .spec import ENSEMBLE, PREPROCESS

if TYPE_CHECKING:
    from .spec import Spec

HEADER = "# Written by `car-analyzer export`; the next export writes it again.\n"
LABELS_FILE = "labels.txt"

# Decoding is the dearest step, and each instance is a process of its own.
_PREPROCESS_INSTANCES = 2


def config_texts(spec: Spec) -> dict[str, str]:
    """Writes config.pbtxt of every model: model name → text."""
    configs = [_preprocess(spec), *(_head(spec, name) for name in spec.heads), _ensemble(spec)]
    return {config.name: HEADER + text_format.MessageToString(config) for config in configs}


def label_texts(spec: Spec) -> dict[str, dict[str, str]]:
    """Writes the label files, one label a line in logit order: model name → file name → text."""
    texts: dict[str, dict[str, str]] = {ENSEMBLE: {}}
    for name, head in spec.heads.items():
        text = "".join(f"{label}\n" for label in head.labels)
        texts[name] = {LABELS_FILE: text}
        texts[ENSEMBLE][_ensemble_labels_file(name)] = text
    return texts


def logits_output(head_name: str) -> str:
    """The ensemble's output for a head."""
    return f"{head_name}_logits"


def _ensemble_labels_file(head_name: str) -> str:
    return f"{head_name}_labels.txt"


def _preprocess(spec: Spec) -> Any:
    limits = {"max_bytes": spec.limits.max_bytes, "max_pixels": spec.limits.max_pixels}
    return pb.ModelConfig(
        name=PREPROCESS,
        backend="python",
        max_batch_size=spec.limits.max_batch_size,
        input=[pb.ModelInput(name="image", data_type=pb.TYPE_STRING, dims=[1])],
        output=[pb.ModelOutput(name="pixels", data_type=pb.TYPE_UINT8, dims=_pixel_dims(spec))],
        instance_group=[pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU, count=_PREPROCESS_INSTANCES)],
        parameters={name: pb.ModelParameter(string_value=str(value)) for name, value in limits.items()},
        # The gate of the whole ensemble. A bounded queue at a later step would not do: Triton before 26.03 leaves the
        # requests that it refuses there without an answer.
        dynamic_batching=_batching(spec, max_queue_size=spec.limits.max_queue_size, allow_timeout_override=True),
    )


def _head(spec: Spec, name: str) -> Any:
    classes = len(spec.heads[name].labels)
    return pb.ModelConfig(
        name=name,
        backend="onnxruntime",
        max_batch_size=spec.limits.max_batch_size,
        input=[pb.ModelInput(name="pixels", data_type=pb.TYPE_UINT8, dims=_pixel_dims(spec))],
        output=[pb.ModelOutput(name="logits", data_type=pb.TYPE_FP32, dims=[classes], label_filename=LABELS_FILE)],
        # No kind: Triton takes a GPU when there is one. A count: without it, Triton starts two instances on a CPU.
        instance_group=[pb.ModelInstanceGroup(count=1)],
        # When a head is slower than decoding, its queue is bounded by time.
        dynamic_batching=_batching(spec),
        model_warmup=[_warmup(spec, batch) for batch in sorted({1, spec.limits.max_batch_size})],
    )


def _ensemble(spec: Spec) -> Any:
    heads = {
        name: {
            "output": logits_output(name),
            "labels": list(head.labels),
            "activation": "softmax",
            "threshold": None,
        }
        for name, head in spec.heads.items()
    }
    return pb.ModelConfig(
        name=ENSEMBLE,
        platform="ensemble",
        max_batch_size=spec.limits.max_batch_size,
        input=[pb.ModelInput(name="image", data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            pb.ModelOutput(
                name=logits_output(name),
                data_type=pb.TYPE_FP32,
                dims=[len(head.labels)],
                label_filename=_ensemble_labels_file(name),
            )
            for name, head in spec.heads.items()
        ],
        parameters={"heads": pb.ModelParameter(string_value=json.dumps(heads))},
        ensemble_scheduling=pb.ModelEnsembling(
            step=[
                pb.ModelEnsembling.Step(
                    model_name=PREPROCESS,
                    model_version=-1,
                    input_map={"image": "image"},
                    output_map={"pixels": "pixels"},
                ),
                *(
                    pb.ModelEnsembling.Step(
                        model_name=name,
                        model_version=-1,
                        input_map={"pixels": "pixels"},
                        output_map={"logits": logits_output(name)},
                    )
                    for name in spec.heads
                ),
            ]
        ),
    )


def _batching(spec: Spec, **policy: Any) -> Any:
    return pb.ModelDynamicBatching(
        default_queue_policy=pb.ModelQueuePolicy(
            default_timeout_microseconds=round(spec.limits.max_queue_seconds * 1e6),
            timeout_action=pb.ModelQueuePolicy.REJECT,
            **policy,
        )
    )


def _warmup(spec: Spec, batch: int) -> Any:
    pixels = pb.ModelWarmup.Input(data_type=pb.TYPE_UINT8, dims=_pixel_dims(spec), random_data=True)
    return pb.ModelWarmup(name=f"batch {batch}", batch_size=batch, inputs={"pixels": pixels})


def _pixel_dims(spec: Spec) -> list[int]:
    width, height = spec.photo_size
    return [height, width, 3]
