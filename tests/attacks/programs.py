"""TorchScript and torch.export programs, which run code when they are loaded or used."""

# ruff: noqa: ARG001 - not every attack uses the canary

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import torch

from .hostile import PROTO, STOP, Reducing, attack, reduce_system, write_zip


class Writing(torch.nn.Module):
    """TorchScript can call torch.save."""

    def __init__(self, canary: Path) -> None:
        super().__init__()
        self.canary = str(canary)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(images, self.canary)
        return images


class WritingAtLoad(torch.nn.Module):
    """Writes as soon as it is loaded."""

    def __init__(self, canary: Path) -> None:
        super().__init__()
        self.canary = str(canary)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.canary, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.canary = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.canary)


def scripted(folder: Path, network: torch.nn.Module) -> Path:
    torch.jit.script(network).save(str(folder / "hostile.pt"))
    return folder / "hostile.pt"


@attack("TorchScript program, which")
def _torchscript_writes_when_run(folder: Path, canary: Path) -> Path:
    return scripted(folder, Writing(canary))


@attack("TorchScript program, which")
def _torchscript_writes_when_loaded(folder: Path, canary: Path) -> Path:
    return scripted(folder, WritingAtLoad(canary))


def exported(folder: Path, *changes: tuple[str, bytes]) -> Path:
    """A torch.export program, with records changed or added."""
    path = folder / "program.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.ones(2, 3),)), path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(content)).partition("/")[0]
    content |= {f"{root}/{name}": data for name, data in changes}
    return write_zip(folder / "hostile.pt2", list(content.items()))


def pickled_tensor(canary: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(Reducing(canary), stream)
    return stream.getvalue()


@attack("torch.export program, which", live=True)
def _export_with_pickled_inputs(folder: Path, canary: Path) -> Path:
    return exported(folder, ("data/sample_inputs/model.pt", pickled_tensor(canary)))


@attack("torch.export program, which", live=True)
def _export_with_pickled_constant(folder: Path, canary: Path) -> Path:
    config = {
        "config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    return exported(
        folder,
        ("data/constants/model_constants_config.json", json.dumps(config).encode()),
        ("data/constants/opaque_obj_0", PROTO + reduce_system(canary) + STOP),
    )


@attack("torch.export program, which")
def _export_with_compiled_code(folder: Path, canary: Path) -> Path:
    return exported(folder, ("data/aotinductor/model/model.so", b"\x7fELF"), ("extra/x", b"y"))
