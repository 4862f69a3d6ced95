"""Reads a classifier's checkpoint, in whichever of the usual containers it comes, without running what is inside.

model ──────── Checkpoint and Facts, what is read
read ───────── read_checkpoint: opens the file, asks the modules below, checks the weights
├── sniff ──── which container it is, by content; one sentence for what is none
├── archive ── a zip's records, and what is wrong with them
├── audit ──── goes through a pickle without unpickling it: names, tensors' sizes, nesting
├── names ──── the classes and functions a pickle names
├── inert ──── stand-ins for the harmless types beside the weights
├── pickled ── torch.save's files, zipped or older, through torch's weights-only unpickler
├── samples ── data that is no network
├── tensors ── safetensors
├── programs ─ TorchScript and torch.export, only when trusted
├── weights ── which part is the network's, and whether it can be used
└── facts ──── labels, normalisation and the like, in the checkpoint or in a JSON file `beside` it
"""

from .model import Checkpoint, Facts
from .read import read_checkpoint

__all__ = ["Checkpoint", "Facts", "read_checkpoint"]
