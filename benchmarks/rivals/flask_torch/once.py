"""What people start for one photo: load PyTorch and both models, answer, end."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from networks import NETWORKS
from reading import HEADS, answer, pixels

picture = torch.from_numpy(np.array(pixels(Path(sys.argv[1]).read_bytes()))).float() / 255
mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
tensor = ((picture - mean) / std).permute(2, 0, 1)[None]
found = {}
for head in HEADS:
    network = NETWORKS[os.environ["BENCHMARK_NETWORK"]]()
    network.load_state_dict(torch.load(Path(os.environ["BENCHMARK_WEIGHTS"]) / f"{head}.pth", weights_only=True))
    with torch.inference_mode():
        found[head] = network.eval()(tensor)[0].numpy()
print(answer(found))
