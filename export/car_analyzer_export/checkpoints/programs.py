"""Networks saved together with their code, TorchScript and torch.export; both only when trusted.

TorchScript cannot import Python modules, but `torch.save(tensor, name)` in it writes a file anywhere, at load
(`__setstate__`) or with the first picture. PyTorch's security policy treats TorchScript as a program, too.

Loading a torch.export program unpickles constants, and sample inputs without the weights-only guard where that guard
fails; it evaluates text as sympy expressions, and compiles guards to Python. Its documentation says never to load an
untrusted one.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import torch

from ..errors import CheckpointError, reason
from ..quiet import quiet
from .model import Facts
from .pickled import TRUST

if TYPE_CHECKING:
    from .archive import Archive

_DYNAMIC = 'dynamic_shapes=({0: torch.export.Dim("batch")},)'
# Operator → the position of its `training` argument.
_TRAINING = {"aten.dropout.default": 2, "aten.batch_norm.default": 5}


class ExportedNetwork(torch.nn.Module):
    """A torch.export program as a network: its own module raises on eval(), which changes nothing in a traced graph."""

    def __init__(self, program: torch.nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def forward(self, images: torch.Tensor) -> Any:
        """Runs the program."""
        return self.program(images)

    def train(self, mode: bool = True) -> ExportedNetwork:  # noqa: ARG002 - the signature of every network
        """Does nothing: the mode was fixed when the program was exported."""
        return self


def load_program(
    kind: Literal["TorchScript", "torch.export"], file: BinaryIO, archive: Archive, *, trust_pickle: bool
) -> tuple[torch.nn.Module, Facts, tuple[str, ...]]:
    """Loads a program onto the CPU; that runs its author's code.

    Raises:
        CheckpointError: It is not trusted, was made by another PyTorch, or works for one batch only.
    """
    name = "TorchScript" if kind == "TorchScript" else "torch.export"
    if not trust_pickle:
        raise CheckpointError(
            f"rejected, because it is a {name} program, which runs its author's code and can write files; save "
            f"network.state_dict() instead and name its architecture, {TRUST}."
        )
    # Compiled for one machine, and loaded as a library; not needed here.
    if any("aotinductor/" in record for record in archive.records):
        raise CheckpointError("rejected, because it holds compiled code (AOTInductor); save it with torch.export.save.")
    file.seek(0)
    try:
        with quiet():
            if kind == "TorchScript":
                script = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
                return script.eval(), Facts(), ()
            program = torch.export.load(io.BytesIO(file.read()))
            facts, notes = _check_program(program)
            return ExportedNetwork(_on_cpu(program).module()), facts, notes
    except CheckpointError:
        raise
    # A program of another version fails with nearly any error.
    except Exception as error:
        raise CheckpointError(
            f"not a {name} program that PyTorch {torch.__version__} can load ({reason(error)}); export it again with "
            "this version, or save network.state_dict()."
        ) from error


def _check_program(program: torch.export.ExportedProgram) -> tuple[Facts, tuple[str, ...]]:
    inputs = program.graph_signature.user_inputs
    shapes = [
        node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs
    ]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise CheckpointError(
            f"its torch.export program takes {len(inputs)} inputs, not one batch of pictures; export the classifier "
            "alone."
        )
    batch, _, height, width = shapes[0]
    if isinstance(batch, int):
        raise CheckpointError(
            f"its torch.export program is frozen to batches of exactly {batch}; export it again with {_DYNAMIC}, or "
            "save network.state_dict()."
        )
    for node in program.graph.nodes:
        position = _TRAINING.get(str(node.target), len(node.args))
        if position < len(node.args) and node.args[position] is True:
            raise CheckpointError(
                f"its torch.export program was exported in training mode ({node.target}); call network.eval() first "
                "and export it again."
            )
    most = next((bounds.upper for symbol, bounds in program.range_constraints.items() if str(symbol) == str(batch)), 0)
    notes = (f"The torch.export program takes batches of at most {most}.",) if 0 < most < 1 << 31 else ()
    if isinstance(height, int) and isinstance(width, int):
        return Facts(image_size=(width, height), sources={"image_size": "the program's input"}), notes
    return Facts(), notes


def _on_cpu(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    devices = {tensor.device.type for tensor in (*program.state_dict.values(), *program.constants.values())}
    devices |= {torch.device(node.kwargs["device"]).type for node in program.graph.nodes if node.kwargs.get("device")}
    if devices <= {"cpu"}:
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, "cpu")
