"""Finds out whether a network gives logits or probabilities, by the operations and the values of its outputs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import NetworkError, SpecError
from ..onnx_model.graph import run_network
from ..pictures import generated

if TYPE_CHECKING:
    from ..spec import HeadPlan, NetworkPlan

_SATURATING = ("softmax", "sigmoid")
# Not bounded by 0 and 1, even if the values for a few pictures are.
_UNBOUNDED = ("linear", "addmm", "mm", "bmm", "matmul", "convolution", "conv2d", "log_softmax")
# These change no number from 0 to 1, only its position.
_PASSING = frozenset(
    (
        *("view", "unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze", "expand", "t", "transpose", "permute"),
        *("select", "slice", "index", "index_select", "gather", "narrow", "split", "split_with_sizes", "chunk"),
        *("unbind", "cat", "concat", "stack", "clone", "alias", "detach", "contiguous", "to", "to_copy", "lift_fresh"),
        *("dropout", "native_dropout", "clamp", "clamp_min", "clamp_max"),
    )
)
_PICTURES = 6
_TOLERANCE = 1e-4


class Outputs:
    """The outputs of a network for test pictures.

    Args:
        plan: The network; its heads are ignored.

    Raises:
        NetworkError: It does not take photos.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self._plan = plan
        self._origins = _Origins()
        black = torch.zeros(1, 3, plan.view.height, plan.view.width)
        try:
            with self._origins:
                self._given = run_network(plan, black)
        except NetworkError:
            run_network(plan, black)  # in the mode above, TorchScript loses the message of an error
            raise

    def classes(self, output: int | str | None) -> int | None:
        """The number of values in an output for one photo; None if there is no such output."""
        found = self._pick(output)
        return None if found is None else found.numel()

    def are_probabilities(self, head: HeadPlan, said: bool | None, notes: list[str]) -> bool:
        """Decides whether an output is probabilities.

        Args:
            head: The head that reads it.
            said: What the spec says.
            notes: Receives sentences for the user.

        Raises:
            SpecError: The spec says that they are, and they cannot be.
        """
        found = self._pick(head.output)
        if found is None or found.numel() != head.classes:
            return False  # `check_network` rejects it
        origin = self._origins.of(found)
        ends = origin in _SATURATING
        if said is False and ends:
            notes.append(
                f"Warning: head '{head.name}': the spec says probabilities = false, but the network ends in a {origin}."
            )
        if said is False or (said is None and origin in _UNBOUNDED):
            return False
        if said is None and ends:
            notes.append(f"Head '{head.name}': the network ends in a {origin}; its output is read as probabilities.")
            rows = head.pick(self._given)
        else:
            rows = head.pick(self._probes).float()
            rows = rows[rows.isfinite().all(dim=1)]  # a hand-written `exp` overflows
            if not self._can_be(rows, head, said, notes):
                return False
        if head.activation == "softmax" and not _add_up(rows):
            notes.append(
                f"Warning: head '{head.name}': the labels' probabilities do not add up to 1. The likeliest label is "
                "returned, and its confidence is its share of their sum. If a photo can have several labels, write "
                'activation = "multilabel".'
            )
        return True

    def _can_be(self, rows: torch.Tensor, head: HeadPlan, said: bool | None, notes: list[str]) -> bool:
        """Judges by values alone; logits can be between 0 and 1 by chance."""
        if not len(rows) or rows.min() < -_TOLERANCE or rows.max() > 1 + _TOLERANCE:
            if said:
                values = f"values from {rows.min():.3g} to {rows.max():.3g}" if len(rows) else "no finite values"
                raise SpecError(
                    f"the spec says probabilities = true for head '{head.name}', but the network gives {values}; "
                    "remove that line."
                )
            return False
        if said:
            return True
        between = f"head '{head.name}': the network's output is between 0 and 1 for every test picture"
        if head.activation == "softmax" and not _add_up(rows):
            notes.append(f"Warning: {between}, but is read as logits. If it is not, write probabilities = true.")
            return False
        notes.append(f"Warning: {between}, and is read as probabilities. If it is not, write probabilities = false.")
        return True

    def _pick(self, output: int | str | None) -> torch.Tensor | None:
        try:
            found = self._given if output is None else self._given[output]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None  # `check_network` has a better message
        return found if isinstance(found, torch.Tensor) else None

    @cached_property
    def _probes(self) -> object:
        """Outputs for very different pictures, some out of range: probabilities are between 0 and 1 there, too."""
        size = (self._plan.view.width, self._plan.view.height)
        pixels = np.stack([generated(seed, size) for seed in range(_PICTURES)])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 64 - 2
        return run_network(self._plan, torch.cat([images, -10 * images]))


def _add_up(rows: torch.Tensor) -> bool:
    return bool(((rows.sum(dim=1) - 1).abs() < _TOLERANCE).all())


class _Origins(TorchDispatchMode):
    """Records which operation computed each tensor, whether Python, TorchScript or a traced graph called it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: Any = WeakTensorKeyDictionary()

    def of(self, tensor: torch.Tensor) -> str | None:
        """The operation's name in ATen, without underscores; None if there are several."""
        found: str | None = self._found.get(tensor)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        origin = func.overloadpacket.__name__.strip("_")
        if origin in _PASSING:
            origins = {self.of(tensor) for tensor in _tensors(args) if tensor.is_floating_point()}
            origin = origins.pop() if len(origins) == 1 else None
        for tensor in _tensors(result):
            self._found[tensor] = origin
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, (tuple, list)) else []
