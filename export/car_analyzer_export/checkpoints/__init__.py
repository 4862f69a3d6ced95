"""Reads a classifier's checkpoint in any of the usual containers, without running what is inside.

model ───────────── Checkpoint and Facts, the result
read ────────────── read_checkpoint: opens the file, calls the modules below, validates the weights
├── sniff ───────── which container it is, by content; a sentence for any other file
├── archive ─────── whether torch.save can have written a zip archive
├── pickled ─────── torch.save's files, zipped or older, with PyTorch's weights-only unpickler
│   ├── inert ───── stand-ins for harmless types of other libraries
│   ├── limits ──── how much memory that may take
│   └── pickle_names ── which classes a pickle names, for messages
├── samples ─────── recognises data that is no network
├── tensors ─────── safetensors
├── programs ────── TorchScript and torch.export, only when trusted
├── weights ─────── which part is the network's, and whether it is usable
└── facts ───────── labels, normalisation and the like, from the checkpoint or a JSON file `beside` it
"""

from .model import Checkpoint, Facts
from .read import read_checkpoint

__all__ = ["Checkpoint", "Facts", "read_checkpoint"]
