"""What all commands of car-analyzer share: exit codes, argument types and flags."""

from __future__ import annotations

import argparse
import math

DONE, FAILED, USAGE, UNREACHABLE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141


def add_tls(parser: argparse.ArgumentParser) -> None:
    """Add the flags for `grpcs://` and `https://`; `TLS.of` takes their values."""
    parser.add_argument("--tls-ca", metavar="FILE", help="certificate authorities to trust, PEM; default: the system's")
    parser.add_argument("--tls-cert", metavar="FILE", help="the client's certificate chain, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="the certificate's private key, PEM")


def count(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def positive(text: str) -> float:
    """A number above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above zero")
    return value


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value
