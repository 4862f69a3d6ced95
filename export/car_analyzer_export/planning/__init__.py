"""From a spec and its checkpoints to a plan: everything that an export needs is decided and checked here.

The networks are built and asked: `outputs` finds outputs that are probabilities, `evidence` a wrong normalisation,
`decoding` whether faster JPEG decoding changes answers.
"""

from .planner import plan_export

__all__ = ["plan_export"]
