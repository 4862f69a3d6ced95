"""Trains a demo model further on labelled photos, such as those that a gateway with `--collect` has kept.

``python examples/fine_tune.py collected/labelled condition --out condition_model.pth`` takes a photo's label from the
folder below that of its head, as in ``collected/labelled/cleanliness/dirty/condition/damaged/``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from demo_network import build
from train_demo_models import BATCH, classify, load_pixels, normalise

# In logit order, as in demo.toml.
LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def find_labelled(folder: Path, head: str) -> list[tuple[Path, int]]:
    """Finds the photos with a label of a head, and the label's place in the logits."""
    found = []
    for file in sorted(folder.rglob("*")):
        folders = file.relative_to(folder).parts[:-1]
        label = folders[folders.index(head) + 1] if head in folders[:-1] else None
        if label in LABELS[head] and file.suffix.lower() in SUFFIXES:
            found.append((file, LABELS[head].index(label)))
    return found


def fine_tune(network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    """Trains a network further on pixels, uint8 [N, 224, 224, 3], and labels, int64 [N]."""
    # Batch-norm statistics and dropout stay as in use: there are few photos.
    network.eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4)
    torch.manual_seed(0)
    for _ in tqdm(range(epochs), "train", disable=None):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            loss = nn.functional.cross_entropy(network(normalise(pixels[chosen])), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def main() -> int:
    """Trains, and writes the new weights; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train a demo model further on labelled photos.")
    parser.add_argument("folder", type=Path, help="photos in folders named by head and label")
    parser.add_argument("head", choices=LABELS)
    parser.add_argument("--weights", type=Path, help="to start from; default: the demo model of this head")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the new weights")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()

    photos = find_labelled(options.folder, options.head)
    if not photos:
        print(f"{options.folder} has no photo in a folder {options.head}/LABEL/.", file=sys.stderr)
        return 1
    network = build()
    weights = options.weights or Path(__file__).with_name(f"{options.head}_model.pth")
    network.load_state_dict(torch.load(weights, weights_only=True))
    pixels = torch.from_numpy(np.stack([load_pixels(file.read_bytes()) for file, _ in photos]))
    labels = torch.tensor([label for _, label in photos])
    before = (classify(network.eval(), pixels).argmax(1) == labels).sum()
    fine_tune(network, pixels, labels, options.epochs)
    after = (classify(network, pixels).argmax(1) == labels).sum()
    torch.save(network.state_dict(), options.out)
    print(f"{options.out}: right on {after} of these {len(photos)} photos, before on {before}; check it on others")
    return 0


if __name__ == "__main__":
    sys.exit(main())
