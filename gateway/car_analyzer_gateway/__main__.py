"""`python -m car_analyzer_gateway`, the same as `car-analyzer gateway`."""

import sys

from ._cli import main

sys.exit(main(sys.argv[1:]))
