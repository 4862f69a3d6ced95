"""Merges the configurations of two versions of a model, so that Triton can load both during a switch."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from ..spec import PREPROCESS


class IncompatibleError(Exception):
    """No configuration fits both versions; the message names the difference, without a full stop."""


def side_by_side(old: Any, new: Any) -> Any:
    """Makes a configuration that serves the old version unchanged, and allows the new one to be loaded beside it.

    Args:
        old: The old version's `ModelConfig`, whose settings win.
        new: The new version's.

    Raises:
        IncompatibleError: Inputs, outputs or the backend differ.
    """
    if not old.version_policy.HasField("specific"):
        raise IncompatibleError(f"the old configuration of '{old.name}' names no version")
    both = pb.ModelConfig()
    both.CopyFrom(old)
    versions = {*old.version_policy.specific.versions, *new.version_policy.specific.versions}
    both.version_policy.specific.versions[:] = sorted(versions)
    both.max_batch_size = max(old.max_batch_size, new.max_batch_size)
    if old.name == PREPROCESS:
        _merge_outputs(both.output, new.output)
        for name, value in new.parameters.items():
            if name not in both.parameters:
                both.parameters[name].CopyFrom(value)
        return both
    for name in ("backend", "platform"):
        if getattr(old, name) != getattr(new, name):
            raise IncompatibleError(
                f"'{old.name}' has the {name} {getattr(old, name)} before and {getattr(new, name)} now"
            )
    for kind, before, after in (("input", old.input, new.input), ("output", old.output, new.output)):
        if _described(before) != _described(after):
            raise IncompatibleError(
                f"'{old.name}' has the {kind} {_described(before)} before and {_described(after)} now"
            )
    return both


def _merge_outputs(outputs: Any, others: Any) -> None:
    """Adds outputs to those of the preprocess step; where sizes differ, the size becomes variable (-1)."""
    by_name = {output.name: output for output in outputs}
    for other in others:
        if other.name not in by_name:
            outputs.add().CopyFrom(other)
        elif list(by_name[other.name].dims) != list(other.dims):
            sizes = zip(by_name[other.name].dims, other.dims, strict=True)
            by_name[other.name].dims[:] = [one if one == two else -1 for one, two in sizes]


def _described(tensors: Any) -> str:
    ordered = sorted(tensors, key=lambda tensor: str(tensor.name))
    return ", ".join(f"{tensor.name} {list(tensor.dims)} {pb.DataType.Name(tensor.data_type)}" for tensor in ordered)
