"""What the command lines of all measurements share. Importing this needs neither PyTorch nor the exporter."""

from __future__ import annotations

import argparse
from pathlib import Path

from car_analyzer.command_line import positive

# The networks of `rivals/networks.py`.
NETWORKS = ("tiny", "resnet18", "resnet50")
# Photo sizes by their names in the tables. Apps send 640 x 480, phones take 12 megapixels.
SIZES = {"s": (640, 480), "m": (1920, 1080), "l": (4000, 3000), "xl": (6000, 4000)}


def make_parser(
    module: str,
    description: str | None,
    *,
    seconds: float = 0,
    network: str = "",
    out: str = "build/bench",
    epilog: str = "",
) -> argparse.ArgumentParser:
    """A parser for `python -m MODULE` with `--out`, and with `--seconds` and `--network` where they have a default."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    if network:
        add("--network", choices=NETWORKS, default=network, help="default: %(default)s")
    if seconds:
        add("--seconds", type=positive, default=seconds, help="of each measurement; default: %(default)s")
    add("--out", type=folder, default=out, metavar="DIR", help="default: %(default)s")
    return parser


def folder(text: str) -> Path:
    """A folder as an absolute path, for argparse."""
    return Path(text).absolute()
