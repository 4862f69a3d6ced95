"""Turns a spec and its checkpoints into a plan: decides and checks everything that an export needs.

It builds and runs the networks: `outputs` finds outputs that are probabilities, `evidence` a wrong normalisation,
`decoding` whether faster JPEG decoding changes answers.
"""

from .planner import plan_export

__all__ = ["plan_export"]
