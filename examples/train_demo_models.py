"""Draws cars, trains the two demo models on them, and checks both on cars they have not seen.

``python examples/train_demo_models.py`` writes ``cleanliness_model.pth`` (logit 0 clean, 1 dirty) and
``condition_model.pth`` (logit 0 intact, 1 damaged) as plain state dicts, and eight sample photos. It needs no GPU and
takes some minutes. The same seed on the same machine and libraries gives the same files.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from demo_network import build
from draw_cars import draw_car

HERE = Path(__file__).resolve().parent
SIDE = 224
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
HEADS = ("cleanliness", "condition")
COMBINATIONS = ("clean_intact", "dirty_intact", "clean_damaged", "dirty_damaged")
NEEDED = 0.97
BATCH = 32

# Pictures are numbered, and each use has a range of its own, so that no picture is in two of them.
TRAIN_START, HELD_OUT_START, PHOTO_START = 0, 1_000_000, 2_001_600


class Pictures(NamedTuple):
    """Drawn pictures as uint8 [N, 224, 224, 3] RGB, and labels as int64 [N, 2]: dirty, damaged."""

    pixels: torch.Tensor
    labels: torch.Tensor


def draw_jpeg(seed: int, number: int, quality: int | None = None) -> bytes:
    """Draws picture ``number`` of a seed as a JPEG; its combination of properties is ``number % 4``.

    Args:
        seed: the seed of the whole set.
        number: which picture.
        quality: JPEG quality; by default it varies from picture to picture, as it does among photos.
    """
    rng = np.random.default_rng((seed, number))
    varied = int(rng.integers(45, 96))
    picture = draw_car(rng, dirty=bool(number % 2), damaged=bool(number // 2 % 2))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality or varied)
    return out.getvalue()


def load_pixels(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Decodes a JPEG as the service does: RGB, Pillow's bilinear resize straight to 224x224; uint8 [224, 224, 3]."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Turns uint8 [N, 224, 224, 3] into the networks' input, float32 [N, 3, 224, 224]."""
    scaled = pixels.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)


def _draw_one(job: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return load_pixels(draw_jpeg(*job))


def draw_set(seed: int, start: int, count: int, title: str) -> Pictures:
    """Draws ``count`` pictures from the number ``start`` on, on all processors."""
    jobs = [(seed, number) for number in range(start, start + count)]
    # Spawned, not forked: torch has threads, and a fork with threads may hang.
    with multiprocessing.get_context("spawn").Pool() as pool:
        drawn = list(tqdm(pool.imap(_draw_one, jobs, chunksize=8), title, count, unit="car", disable=None))
    labels = [(number % 2, number // 2 % 2) for _, number in jobs]
    return Pictures(torch.from_numpy(np.stack(drawn)), torch.tensor(labels))


def train(pictures: Pictures, head: int, epochs: int, seed: int) -> nn.Module:
    """Trains one network on one label column.

    Args:
        pictures: the training set.
        head: the label column, 0 or 1, an index into ``HEADS``.
        epochs: passes over the set.
        seed: where the initial weights, the order and the dropout come from.

    Returns:
        The trained network in eval mode.
    """
    torch.manual_seed(seed + head)
    network = build()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = len(pictures.labels)
    steps = -(-count // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.02)
    network.train()
    with tqdm(total=epochs * steps, desc=f"train {HEADS[head]}", unit="step", disable=None) as bar:
        for _ in range(epochs):
            order = torch.randperm(count)
            for first in range(0, count, BATCH):
                chosen = order[first : first + BATCH]
                batch = normalise(pictures.pixels[chosen])
                if torch.rand(()) < 0.5:
                    batch = batch.flip(3)
                # Small changes of contrast and brightness stand for cameras the drawings do not have.
                batch = batch * (0.85 + 0.3 * torch.rand(len(chosen), 1, 1, 1))
                batch = batch + 0.2 * torch.randn(len(chosen), 1, 1, 1)
                batch = batch.contiguous(memory_format=torch.channels_last)
                loss = loss_of(network(batch), pictures.labels[chosen, head])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update()
    return network.eval()


@torch.inference_mode()
def classify(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Gives the two probabilities of each picture, float32 [N, 2], for uint8 [N, 224, 224, 3]."""
    parts = [network(normalise(pixels[i : i + 64])).softmax(1) for i in range(0, len(pixels), 64)]
    return torch.cat(parts)


def write_photos(networks: list[nn.Module], seed: int, folder: Path) -> bool:
    """Writes two sample JPEGs for each combination; returns whether the networks are sure and right about all.

    Pictures that the networks are unsure about are passed over, as these eight are what the demo shows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for combination, name in enumerate(COMBINATIONS):
        labels = (combination % 2, combination // 2)
        found = 0
        for number in range(PHOTO_START + combination, PHOTO_START + 400, 4):
            jpeg = draw_jpeg(seed, number, quality=88)
            pixels = torch.from_numpy(load_pixels(jpeg).copy())[None]
            if all(classify(net, pixels)[0, label] > 0.95 for net, label in zip(networks, labels, strict=True)):
                found += 1
                (folder / f"{name}_{found}.jpg").write_bytes(jpeg)
            if found == 2:
                break
        if found < 2:
            return False
    return True


def report(networks: list[nn.Module], held_out: Pictures) -> bool:
    """Prints the accuracy of each head, also by combination; returns whether both are good enough."""
    good = True
    for head, network in enumerate(networks):
        right = classify(network, held_out.pixels).argmax(1) == held_out.labels[:, head]
        accuracy = right.float().mean().item()
        print(f"{HEADS[head]}: {accuracy:.4f} of {len(right)} held-out pictures")
        group = held_out.labels[:, 0] + 2 * held_out.labels[:, 1]
        for combination, name in enumerate(COMBINATIONS):
            print(f"    {name}: {right[group == combination].float().mean().item():.4f}")
        good = good and accuracy >= NEEDED
    return good


def main() -> int:
    """Runs the whole thing; returns the exit status, 1 when a model is not good enough."""
    parser = argparse.ArgumentParser(description="Draw cars and train the two demo models on them.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the two .pth files")
    parser.add_argument("--photos", type=Path, default=HERE / "photos", help="folder for the eight sample photos")
    parser.add_argument("--train", type=int, default=2400, help="pictures to train on")
    parser.add_argument("--held-out", type=int, default=1000, help="pictures to check on")
    parser.add_argument("--epochs", type=int, default=12, help="passes for condition; a quarter for cleanliness")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    began = time.monotonic()
    torch.use_deterministic_algorithms(True)
    training = draw_set(options.seed, TRAIN_START, options.train, "draw training set")
    held_out = draw_set(options.seed, HELD_OUT_START, options.held_out, "draw held-out set")
    print(f"drawn {options.train} + {options.held_out} pictures in {time.monotonic() - began:.0f} s")
    # Dirt covers much of a car and is learnt in a few passes; a dent or a crack is small and takes them all.
    epochs = (max(1, options.epochs // 4), options.epochs)
    networks = [train(training, head, epochs[head], options.seed) for head in range(len(HEADS))]
    good = report(networks, held_out)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, network in zip(HEADS, networks, strict=True):
        # Plain contiguous tensors, as any other training would leave them.
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        torch.save(weights, options.out / f"{name}_model.pth")
    if good and not write_photos(networks, options.seed, options.photos):
        print("too few sample photos are classified with confidence", file=sys.stderr)
        good = False
    print(f"done in {time.monotonic() - began:.0f} s")
    if not good:
        print(f"a model is below {NEEDED} or unsure; train on more pictures or for more epochs", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
