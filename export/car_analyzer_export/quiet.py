"""Keeps what libraries tell their own developers off the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import re
import textwrap
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception): (.+)$", re.MULTILINE)
_LONGEST = 400


def reason(error: BaseException) -> str:
    """What an error of a library, or of a network, comes down to: one printable sentence."""
    # What torch.onnx raises is a page about its own steps; what went wrong is the cause.
    while error.__cause__ is not None and type(error).__module__.startswith("torch.onnx."):
        error = error.__cause__
    text = _TERMINAL_CODES.sub("", str(error)).strip()
    # TorchScript puts a traceback before it.
    text = ([text.partition("\n\n")[0], *_RAISED.findall(text)])[-1]
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", textwrap.shorten(text, _LONGEST, placeholder=" ..."))[0]
    return "".join(letter for letter in sentence if letter.isprintable()) or type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings and logs below critical; errors still come as exceptions."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
