"""One OpenMP thread for each process of the tests: PyTorch's wait for one another in a loop that burns a whole core.

Before PyTorch is imported, which reads it once. With four processes on two cores the tests need a fifth of the time.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
