"""What every process of the tests sets before it imports PyTorch.

One OpenMP thread: PyTorch's wait for one another in a loop that burns a whole core, and PyTorch reads this once. With
four processes on two cores the tests need a fifth of the time. And fewer looks for garbage: an import or an export
makes so many objects that live on that they take a sixth of its time.
"""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.set_threshold(50_000, 20, 100)
