"""`python -m car_analyzer`, the same as `car-analyzer`."""

import sys

from ._cli.main import main

sys.exit(main())
