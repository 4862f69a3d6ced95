"""Both networks as people have them: in PyTorch, one photo at a time."""

import os
from pathlib import Path

import numpy as np
import torch
from networks import NETWORKS
from reading import HEADS, answers, pixels

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def load(head):
    network = NETWORKS[os.environ["BENCHMARK_NETWORK"]]()
    network.load_state_dict(torch.load(Path(os.environ["BENCHMARK_WEIGHTS"]) / f"{head}.pth", weights_only=True))
    return network.eval()


networks = {head: load(head) for head in HEADS}


def analyze(photo):
    picture = torch.from_numpy(np.array(pixels(photo))).float() / 255
    tensor = ((picture - MEAN) / STD).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return answers({head: network(tensor).numpy() for head, network in networks.items()})[0]
