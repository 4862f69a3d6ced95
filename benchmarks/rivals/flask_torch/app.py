"""What people have: Flask and PyTorch in one process, here under gunicorn with a worker for each core."""

import os
from pathlib import Path

import numpy as np
import torch
from flask import Flask, jsonify, request
from networks import NETWORKS
from reading import HEADS, answer, pixels

torch.set_num_threads(1)
app = Flask(__name__)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def load(head: str) -> torch.nn.Module:
    network = NETWORKS[os.environ["BENCHMARK_NETWORK"]]()
    network.load_state_dict(torch.load(Path(os.environ["BENCHMARK_WEIGHTS"]) / f"{head}.pth", weights_only=True))
    return network.eval()


networks = {head: load(head) for head in HEADS}


@app.post("/analyze")
def analyze():
    picture = torch.from_numpy(np.array(pixels(request.files["image"].read()))).float() / 255
    tensor = ((picture - MEAN) / STD).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return jsonify(answer({head: network(tensor)[0].numpy() for head, network in networks.items()}))
