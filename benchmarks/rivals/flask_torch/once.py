"""What people start for one photo: load PyTorch and both models, answer, end."""

import sys
from pathlib import Path

from model import analyze

print(analyze(Path(sys.argv[1]).read_bytes()))
