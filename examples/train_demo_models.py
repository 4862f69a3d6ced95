"""Draws cars, trains the two demo models on them, and tests both on cars that they were not trained on.

``python examples/train_demo_models.py`` writes ``cleanliness_model.pth`` (logit 0 clean, 1 dirty),
``condition_model.pth`` (logit 0 intact, 1 damaged), both as plain state dicts, and eight sample photos. It takes some
minutes without a GPU. The same seed on the same machine with the same libraries gives the same files: of 1,000 other
pictures, the committed models classify 100 % (cleanliness) and 99.7 % (condition) correctly. They were not trained on
photographs, and say nothing about them.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import sys
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from demo_network import build
from draw_cars import COMBINATIONS, draw_jpeg

HEADS = ("cleanliness", "condition")
# Dirt covers much of a car and is learnt in a few epochs; a crack is small and takes more.
EPOCHS = (3, 10)
NEEDED = 0.97
BATCH = 32
# Each use has its own range of picture numbers, so that no picture is in two of them. `draw_cars` has another one.
TRAIN_START, TEST_START, PHOTO_START = 0, 1_000_000, 2_000_000


def load_pixels(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Decodes and resizes a JPEG as the service does: uint8 [224, 224, 3], RGB."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        return np.array(picture.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))


def draw_set(seed: int, start: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws pictures on all cores: pixels, uint8 [N, 224, 224, 3], and labels, int64 [N, 2]: dirty, damaged."""
    numbers = range(start, start + size)
    # Spawned, not forked: torch has threads, and a fork with threads may hang.
    with multiprocessing.get_context("spawn").Pool() as pool:
        drawn = tqdm(pool.imap(partial(draw_jpeg, seed), numbers, chunksize=8), "draw", size, disable=None)
        pixels = np.stack([load_pixels(jpeg) for jpeg in drawn])
    return torch.from_numpy(pixels), torch.tensor([(number % 2, number // 2 % 2) for number in numbers])


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Turns uint8 [N, 224, 224, 3] into the networks' input, float32 [N, 3, 224, 224]."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((pixels.float() / 255 - mean) / deviation).permute(0, 3, 1, 2)


def train(pixels: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int) -> nn.Module:
    """Trains a network on pixels, uint8 [N, 224, 224, 3], and labels, int64 [N]; returns it in eval mode."""
    torch.manual_seed(seed)
    network = build().to(memory_format=torch.channels_last)
    steps = epochs * -(-len(labels) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.02)
    with tqdm(desc="train", total=steps, disable=None) as bar:
        for _ in range(epochs):
            for chosen in torch.randperm(len(labels)).split(BATCH):
                # Other contrast and brightness, as of cameras that the drawings do not have.
                contrast, brightness = torch.rand(2, len(chosen), 1, 1, 1)
                batch = normalise(pixels[chosen]) * (0.85 + 0.3 * contrast) + 0.4 * (brightness - 0.5)
                loss = loss_of(network(batch), labels[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                bar.update()
    return network.eval()


@torch.inference_mode()
def classify(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Gives the probabilities, float32 [N, 2], of pixels, uint8 [N, 224, 224, 3]."""
    return torch.cat([network(normalise(few)).softmax(1) for few in pixels.split(64)])


def write_photos(networks: list[nn.Module], seed: int, folder: Path) -> None:
    """Writes two JPEGs of each combination: the first that both networks classify correctly with confidence."""
    folder.mkdir(parents=True, exist_ok=True)
    for combination, name in enumerate(COMBINATIONS):
        numbers = count(PHOTO_START + combination, len(COMBINATIONS))
        for photo in (1, 2):
            sure = False
            while not sure:
                jpeg = draw_jpeg(seed, next(numbers), quality=82)
                found = [classify(network, torch.from_numpy(load_pixels(jpeg))[None])[0] for network in networks]
                sure = min(found[0][combination % 2], found[1][combination // 2]) > 0.95
            (folder / f"{name}_{photo}.jpg").write_bytes(jpeg)


def main() -> int:
    """Draws, trains, tests and writes; returns the exit code, 1 when a model is not accurate enough."""
    parser = argparse.ArgumentParser(description="Draw cars and train the two demo models on them.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for weights and photos/")
    parser.add_argument("--train", type=int, default=2000, help="pictures to train on; default: %(default)s")
    parser.add_argument("--test", type=int, default=1000, help="other pictures to test on; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()

    torch.use_deterministic_algorithms(True)
    pixels, labels = draw_set(options.seed, TRAIN_START, options.train)
    test_pixels, test_labels = draw_set(options.seed, TEST_START, options.test)
    networks = []
    for head, name in enumerate(HEADS):
        network = train(pixels, labels[:, head], EPOCHS[head], options.seed)
        right = classify(network, test_pixels).argmax(1) == test_labels[:, head]
        accuracy = right.float().mean().item()
        print(f"{name}: {accuracy:.1%} of {options.test} pictures that it was not trained on")
        if accuracy < NEEDED:
            print(f"Less than {NEEDED:.0%}: nothing is written. Train on more pictures.", file=sys.stderr)
            return 1
        networks.append(network)
    write_photos(networks, options.seed, options.out / "photos")
    for name, network in zip(HEADS, networks, strict=True):
        # Plain contiguous tensors, as other trainings leave them.
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        torch.save(weights, options.out / f"{name}_model.pth")
    return 0


if __name__ == "__main__":
    sys.exit(main())
