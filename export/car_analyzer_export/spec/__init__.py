"""The user's spec: `tables` reads the TOML file, `plan` holds the complete plan made from it.

Imports no PyTorch.
"""

from .plan import HeadPlan, NetworkPlan, Plan, describe_head, normalised
from .tables import ENSEMBLE, EXPLAIN, PREPROCESS, WELL_KNOWN_LABELS, Head, Limits, Network, Spec

__all__ = [
    "ENSEMBLE",
    "EXPLAIN",
    "PREPROCESS",
    "WELL_KNOWN_LABELS",
    "Head",
    "HeadPlan",
    "Limits",
    "Network",
    "NetworkPlan",
    "Plan",
    "Spec",
    "describe_head",
    "normalised",
]
