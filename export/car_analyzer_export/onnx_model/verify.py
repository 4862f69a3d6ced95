"""Compares an exported model with its PyTorch network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime
import torch

from ..errors import NetworkError, VerificationError, reason
from ..spec import normalised
from .answers import read_answers
from .graph import run_network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from car_analyzer import Head

    from ..spec import HeadPlan, NetworkPlan

BATCHES = (1, 2, 7, 32)
# The accepted difference of logits up to 10, and of larger ones as a share of the largest: float32 rounds to a share.
TOLERANCE = 1e-4
_RELATIVE = 1e-5
# Or several times PyTorch's own rounding error, as ONNX Runtime adds in another order; at most a share, too.
_ROUNDING = 4
_MOST_ROUNDING = 1e-3
# The accepted change by padding, as a share of the largest logit. Lower precisions round more.
_MOST_PADDED = {"fp32": _MOST_ROUNDING, "fp16": 0.01, "int8": 0.01}
# Enough pictures to notice even a low dropout rate, and for PyTorch's rounding error.
_FEW = 7


@dataclass(frozen=True)
class Comparison:
    """The result for one batch size: the largest difference, and how many answers agree.

    The difference is that of a logit or, if the network returns probabilities, of a probability as the client reads it.
    """

    batch: int
    max_difference: float
    answers_agreeing: int


@dataclass(frozen=True)
class Tolerance:
    """The accepted difference of one head.

    Attributes:
        limit: The largest accepted difference.
        basis: What it depends on: `absolute` (nothing), `relative` (the largest logit), or `float64` (`rounding`,
            at most a thousandth of the largest logit).
        size: The largest absolute logit.
        rounding: How far PyTorch's float32 logits are from its float64 logits, if that was measured.
    """

    limit: float
    basis: Literal["absolute", "relative", "float64"]
    size: float
    rounding: float | None = None


@dataclass(frozen=True)
class Compared:
    """The result for one head: the tolerance, and the comparison at every batch size."""

    tolerance: Tolerance
    batches: tuple[Comparison, ...]


def check_repeats(plan: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> None:
    """Makes sure that the network is deterministic: the same pictures give the same logits twice.

    Args:
        plan: The network.
        pixels: The pictures, uint8 [count, height, width, 3]; a few are used.

    Raises:
        NetworkError: It is not.
    """
    first, second = (torch_outputs(plan, pixels[:_FEW]) for _ in range(2))
    for head in plan.heads:
        one, two = torch_logits(head, first), torch_logits(head, second)
        if (difference := _largest(one - two)) > _relative(_largest(one)):
            raise NetworkError(
                f"The network itself is random: its logits for the same pictures differ by {difference:.2g} from run "
                "to run. The usual cause is F.dropout(x) without training=self.training, which is active even after "
                "eval(); add it, or use nn.Dropout."
            )


def compare(onnx_file: Path, plan: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> dict[str, Compared]:
    """Runs both on the same pictures, at every batch size in `BATCHES`.

    Logits may differ by `TOLERANCE`, and those above 10 by more: they have fewer digits behind the point. PyTorch's
    rounding error is measured only if that is not enough.

    Args:
        onnx_file: The exported model.
        plan: Its network.
        pixels: At least as many pictures as the largest batch, uint8 [count, height, width, 3].

    Returns:
        Head name → its comparisons.

    Raises:
        VerificationError: ONNX Runtime fails, a logit or probability differs by more than is accepted, or an answer
            differs.
        NetworkError: PyTorch fails.
    """
    names = [plan.output_name(head) for head in plan.heads]
    expected = {batch: torch_outputs(plan, pixels[:batch]) for batch in BATCHES}
    try:
        session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
        served = {batch: session.run(names, {"pixels": pixels[:batch]}) for batch in BATCHES}
    except Exception as error:
        raise VerificationError(f"ONNX Runtime cannot run the exported model: {reason(error)}.") from error
    found = {}
    for position, head in enumerate(plan.heads):
        batches = tuple(_compare(head, served[batch][position], expected[batch]) for batch in BATCHES)
        size = _largest(torch_logits(head, expected[max(BATCHES)]))
        tolerance = _tolerance(plan, head, pixels[:_FEW], size, _largest([one.max_difference for one in batches]))
        for one in batches:
            _check(one, tolerance)
        found[head.name] = Compared(tolerance, batches)
    return found


def compare_padded(
    plain: Path,
    padded: Path,
    plan: NetworkPlan,
    pixels: npt.NDArray[np.uint8],
    sizes: Sequence[int],
    precision: str,
) -> dict[str, Any]:
    """Makes sure that a model with fixed batch sizes gives the logits of the model that it was made of.

    Args:
        plain: The model with a dynamic batch, compared with PyTorch before.
        padded: The model with fixed batch sizes.
        plan: Its network.
        pixels: At least as many pictures as the largest size, uint8 [count, height, width, 3].
        sizes: The batch sizes, ascending.
        precision: Of both models.

    Returns:
        The batches that were compared, and the largest difference of a logit, JSON-ready.

    Raises:
        VerificationError: ONNX Runtime fails, or a logit differs by more than is accepted.
    """
    largest = sizes[-1]
    around = {batch for size in sizes for batch in (size - 1, size + 1)}
    batches = sorted(batch for batch in {1, 2, largest, *around} if 1 <= batch <= largest)
    names = [plan.output_name(head) for head in plan.heads]
    try:
        one, other = (
            onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in (plain, padded)
        )
        expected = one.run(names, {"pixels": pixels[:largest]})
        found = {batch: other.run(names, {"pixels": pixels[:batch]}) for batch in batches}
    except Exception as error:
        raise VerificationError(
            f"ONNX Runtime cannot run the model with fixed batch sizes: {reason(error)}."
        ) from error
    differences = []
    for batch, (position, head) in product(batches, enumerate(plan.heads)):
        rows, others = expected[position][:batch], found[batch][position]
        difference = _largest(rows - others) if rows.shape == others.shape else np.inf
        if head.probabilities and np.isfinite(difference):
            # Their logits magnify rounding errors.
            rows, others = (_read_probabilities(read_answers(head, logits)) for logits in (rows, others))
            difference = _largest(rows - others)
        accepted = _MOST_PADDED[precision] * max(1.0, _largest(rows))
        # Not `difference > accepted`: NaN must fail, too.
        if not difference <= accepted:
            raise VerificationError(
                f"Padding a batch of {batch} changes the answers of head '{head.name}' by {difference:.2g} (at most "
                f"{accepted:.2g} is accepted): the network's answer for a photo depends on the other photos of its "
                "batch. To export it without padding, write batch_sizes = [] in [limits]."
            )
        differences.append(difference)
    return {"batches": batches, "max_difference": max(differences)}


def torch_outputs(plan: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> object:
    """Runs the network with PyTorch and the preprocessing of training, not with the exported graph.

    Args:
        plan: The network.
        pixels: uint8 [batch, height, width, 3], RGB.

    Returns:
        The output of the network.

    Raises:
        NetworkError: The network fails.
    """
    return run_network(plan, normalised(pixels, plan.mean, plan.std, bgr=plan.bgr))


def torch_logits(head: HeadPlan, outputs: object) -> npt.NDArray[np.float32]:
    """A head's logits, float32 [batch, logits], from the network's output."""
    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = head.read(outputs).float().numpy()
        return logits


def _compare(head: HeadPlan, served: npt.NDArray[np.float32], outputs: object) -> Comparison:
    expected = torch_logits(head, outputs)
    batch = len(expected)
    if served.shape != expected.shape:
        raise VerificationError(
            f"At batch {batch} ONNX Runtime gives logits of shape {served.shape}, PyTorch {expected.shape}."
        )
    difference, agreeing = _largest(served - expected), 0
    if np.isfinite(difference):
        answers, others = (read_answers(head, logits) for logits in (served, expected))
        agreeing = sum(one.label == other.label for one, other in zip(answers, others, strict=True))
        if head.probabilities:
            # With the network's own probabilities: the logits made of them could be wrong on both sides.
            difference = _largest(_read_probabilities(answers) - _own_probabilities(head, outputs))
    return Comparison(batch, difference, agreeing)


def _read_probabilities(answers: Sequence[Head]) -> npt.NDArray[np.float64]:
    return np.array([list(answer.probabilities.values()) for answer in answers])


def _tolerance(
    plan: NetworkPlan, head: HeadPlan, pixels: npt.NDArray[np.uint8], size: float, difference: float
) -> Tolerance:
    """The tolerance of a head for a difference that was found: the strictest one that accepts it, if one does."""
    absolute = Tolerance(TOLERANCE, "absolute", size)
    if difference <= TOLERANCE or head.probabilities or not np.isfinite(difference):
        return absolute
    relative = Tolerance(_relative(size), "relative", size) if _relative(size) > TOLERANCE else absolute
    if difference <= relative.limit:
        return relative
    rounding = _rounding_error(plan, head, pixels)
    if relative is absolute or rounding is None or _ROUNDING * rounding <= relative.limit:
        return replace(relative, rounding=rounding)
    return Tolerance(min(_ROUNDING * rounding, _MOST_ROUNDING * size), "float64", size, rounding)


def _check(found: Comparison, tolerance: Tolerance) -> None:
    # Not `difference > limit`: NaN must fail, too.
    if found.max_difference <= tolerance.limit and found.answers_agreeing == found.batch:
        return
    accepted = f"at most {tolerance.limit:.2g} is accepted"
    if tolerance.basis != "absolute":
        accepted += f" for logits up to {tolerance.size:.3g}"
    raise VerificationError(
        f"At batch {found.batch} ONNX Runtime and PyTorch differ by {found.max_difference:.2g} ({accepted}), and "
        f"{found.answers_agreeing} of {found.batch} answers agree. {_way_out(found, tolerance)}"
    )


def _way_out(found: Comparison, tolerance: Tolerance) -> str:
    if not np.isfinite(found.max_difference):
        return "A logit is not a finite number: check the weights, and the normalisation (mean, std) of the spec."
    if found.max_difference <= tolerance.limit:
        return (
            "An answer is on the decision boundary, where rounding decides: compare on photos like those in production "
            "(--photos DIR)."
        )
    if tolerance.rounding is not None and _ROUNDING * tolerance.rounding >= found.max_difference:
        return (
            f"PyTorch's own logits are off by {tolerance.rounding:.2g} compared with double precision: on these "
            "pictures, the network amplifies rounding errors. Compare on photos like those in production (--photos "
            "DIR), and check that the normalisation (mean, std) is that of training."
        )
    return (
        "The exported model computes something else, as where forward() takes a value out of a tensor (.item(), int(), "
        "if), or calls an operation that PyTorch exports differently: write that part with other tensor operations, "
        "and name the network as FILE.py:FACTORY. If only generated pictures differ, compare on photos (--photos DIR)."
    )


def _rounding_error(plan: NetworkPlan, head: HeadPlan, pixels: npt.NDArray[np.uint8]) -> float | None:
    """How far PyTorch's float32 logits are from its float64 logits; None if the network cannot run in float64."""
    images = normalised(pixels, plan.mean, plan.std, bgr=plan.bgr)
    try:
        with torch.inference_mode():
            precise = head.read(copy.deepcopy(plan.network).double()(images.double())).numpy()
    except Exception:  # noqa: BLE001 - networks that create float32 tensors fail in their own ways
        return None
    error = _largest(torch_logits(head, run_network(plan, images)) - precise)
    return error if np.isfinite(error) else None


def _relative(size: float) -> float:
    return max(TOLERANCE, _RELATIVE * size)


def _largest(values: npt.ArrayLike) -> float:
    """The largest absolute value; NaN if one is."""
    return float(np.abs(values).max())


def _own_probabilities(head: HeadPlan, outputs: object) -> npt.NDArray[np.float64]:
    """The probability of each label, [batch, labels], from a network that returns probabilities."""
    given = head.pick(outputs).double().numpy()
    if head.groups:
        given = np.stack([given[:, group].sum(axis=1) for group in head.groups], axis=1)
    if head.activation == "sigmoid":
        given = np.hstack([1 - given, given])
    shares: npt.NDArray[np.float64] = (
        given / given.sum(axis=1, keepdims=True) if head.activation == "softmax" else given
    )
    return shares
