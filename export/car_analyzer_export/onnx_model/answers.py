"""Reads logits as the client does, by the heads' contract in `car_analyzer.heads`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from car_analyzer.heads import HeadSpec, Tensor, parse_heads

from ..spec import ENSEMBLE, describe_head

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from car_analyzer import Head

    from ..spec import HeadPlan


def head_spec(head: HeadPlan) -> HeadSpec:
    """A head as the client parses it from the configuration."""
    (spec,) = parse_heads(json.dumps({head.name: describe_head(head)}), ENSEMBLE)
    return spec


def read_answers(head: HeadPlan | HeadSpec, logits: npt.NDArray[np.floating[Any]]) -> list[Head]:
    """The client's answer for each row of finite logits, [batch, logits].

    Raises:
        ServerError: A logit is not finite.
    """
    spec = head if isinstance(head, HeadSpec) else head_spec(head)
    return [spec.read(Tensor((1, len(row)), tuple(map(float, row)))) for row in logits]
