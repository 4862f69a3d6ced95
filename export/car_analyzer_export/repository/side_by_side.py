"""One configuration for two versions of a model, so that Triton can hold both while it changes between them."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from ..spec import PREPROCESS


class IncompatibleError(Exception):
    """There is no such configuration; the message says what differs, without a full stop."""


def side_by_side(old: Any, new: Any) -> Any:
    """A configuration under which an old version is served as before, and a new one can be loaded beside it.

    Args:
        old: The old version's `ModelConfig`, whose settings win.
        new: The new version's.

    Raises:
        IncompatibleError: What goes in or comes out differs in a way that no one configuration describes.
    """
    if not old.version_policy.HasField("specific"):
        raise IncompatibleError(f"'{old.name}' names no version before")
    both = pb.ModelConfig()
    both.CopyFrom(old)
    versions = {*old.version_policy.specific.versions, *new.version_policy.specific.versions}
    both.version_policy.specific.versions[:] = sorted(versions)
    both.max_batch_size = max(old.max_batch_size, new.max_batch_size)
    if old.name == PREPROCESS:
        _join(both.output, new.output)
        for name, value in new.parameters.items():
            if name not in both.parameters:
                both.parameters[name].CopyFrom(value)
        return both
    for what in ("backend", "platform"):
        if getattr(old, what) != getattr(new, what):
            raise IncompatibleError(
                f"'{old.name}' is of {what} {getattr(old, what)} before and {getattr(new, what)} now"
            )
    for verb, before, after in (("takes", old.input, new.input), ("gives", old.output, new.output)):
        if _described(before) != _described(after):
            raise IncompatibleError(f"'{old.name}' {verb} {_described(before)} before and {_described(after)} now")
    return both


def _join(outputs: Any, others: Any) -> None:
    """Every output of both; where their sizes differ, of any size. It is our own code that runs there: it knows."""
    known = {output.name: output for output in outputs}
    for other in others:
        if other.name not in known:
            outputs.add().CopyFrom(other)
        elif list(known[other.name].dims) != list(other.dims):
            sizes = zip(known[other.name].dims, other.dims, strict=True)
            known[other.name].dims[:] = [one if one == two else -1 for one, two in sizes]


def _described(tensors: Any) -> str:
    ordered = sorted(tensors, key=lambda tensor: str(tensor.name))
    return ", ".join(f"{tensor.name} {list(tensor.dims)} {pb.DataType.Name(tensor.data_type)}" for tensor in ordered)
