"""Reads what torch.save wrote, as a zip archive or in the older format, through PyTorch's weights-only unpickler."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from ..errors import CheckpointError
from .audit import ALLOWED, MAX_TEXT, QUANTISED, Audit, ForeignGlobalsError
from .inert import STAND_INS
from .names import named_globals
from .sniff import listed

if TYPE_CHECKING:
    from .archive import Archive

# The older format is a row of pickles: a number to know it by, its version, the machine, the content, the storages'
# keys. The storages follow, each after its length.
_LEGACY_PICKLES = 5
_STORAGE_HEADER = 8

TRUST = "or pass --trust-pickle if you made this file yourself"


def load_zip(file: BinaryIO, size: int, archive: Archive, *, trust_pickle: bool) -> Any:
    """Loads an archive of torch.save.

    Raises:
        CheckpointError: It is damaged or crafted, or would have to be trusted.
    """
    if archive.sizes["data.pkl"] > MAX_TEXT:
        raise CheckpointError(
            f"refused, because its pickle alone takes {archive.sizes['data.pkl']:,} bytes; save network.state_dict() "
            "without the data beside it."
        )
    file.seek(0)
    try:
        # With the reader that PyTorch will use, so that what is audited is what is loaded.
        pickle = torch._C.PyTorchFileReader(file).get_record("data.pkl")
    except RuntimeError as error:
        raise _unreadable(error) from error
    audit = Audit(lambda key: archive.sizes.get(f"data/{key}"), _most_bytes(size))
    try:
        audit.check(io.BytesIO(pickle))
    except ForeignGlobalsError:
        if not trust_pickle:
            raise _refusal(named_globals(io.BytesIO(pickle))[0]) from None
        return _load(file, trusted=True)
    return _load(file)


def load_legacy(file: BinaryIO, size: int, *, trust_pickle: bool) -> Any:
    """Loads a file of the format that torch.save wrote before PyTorch 1.6.

    Raises:
        CheckpointError: It is damaged or crafted, or would have to be trusted.
    """
    file.seek(0)
    # The pickle decides how much memory a storage takes before it is read, so the file's size bounds it.
    audit = Audit(lambda _key: size, _most_bytes(size))
    stream = _Bounded(file)
    try:
        for _ in range(_LEGACY_PICKLES):
            audit.check(stream)  # type: ignore[arg-type]
    except ForeignGlobalsError:
        if not trust_pickle:
            file.seek(0)
            names = [name for _ in range(_LEGACY_PICKLES) for name in named_globals(stream)[0]]  # type: ignore[arg-type]
            raise _refusal(list(dict.fromkeys(names))) from None
        return _load(file, trusted=True)
    wanted = sum(_STORAGE_HEADER + count for count in audit.storages.values())
    # It would keep whatever was in memory before.
    if not audit.storages.keys() <= audit.texts:
        raise CheckpointError("refused, because it holds a tensor without numbers; get the file from its source again.")
    if file.tell() + wanted > size:
        raise CheckpointError(
            f"not a checkpoint that PyTorch can read: its tensors take {wanted:,} bytes and the file holds "
            f"{size - file.tell():,}; copy or download it again."
        )
    return _load(file)


def _load(file: BinaryIO, *, trusted: bool = False) -> Any:
    file.seek(0)
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=not trusted, mmap=False)
    except (AttributeError, ImportError) as error:
        if not trusted:
            raise _unreadable(error) from error
        raise CheckpointError(
            f"its pickled network needs code that is not here ({_first_line(error)}); put that code's folder on "
            "PYTHONPATH, or save network.state_dict() instead of the network."
        ) from error
    # A damaged file surfaces as nearly any error: RuntimeError (zip), EOFError, KeyError, UnpicklingError, ...
    except Exception as error:
        raise _unreadable(error) from error


class _Bounded:
    """A file that is never asked for more than a text may take: Python sets the memory aside before it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, MAX_TEXT))

    def readline(self) -> bytes:
        return self._file.readline(MAX_TEXT)

    def tell(self) -> int:
        return self._file.tell()


def _most_bytes(size: int) -> int:
    # Weights can be tied and so counted more than once, and a small buffer can be stored expanded.
    return 4 * size + (64 << 20)


def _refusal(names: list[str]) -> CheckpointError:
    foreign = [name for name in names if name not in ALLOWED]
    if any(name in QUANTISED for name in names):
        return CheckpointError(
            "holds quantised weights, which cannot be exported; save network.state_dict() before it is quantised."
        )
    if not foreign:
        return CheckpointError(
            "was saved with another pickle protocol than torch.save's own, which cannot be read without running it; "
            f"save it without pickle_protocol=, {TRUST}."
        )
    if all(name.startswith("torch._utils._rebuild_") or name == "torch.serialization._get_layout" for name in foreign):
        return CheckpointError(
            f"holds tensors of a kind that cannot be exported ({listed(foreign)}); save network.state_dict() with "
            "plain tensors."
        )
    which = "which is no part of plain weights" if len(foreign) == 1 else "which are no part of plain weights"
    return CheckpointError(
        f"refused, because it names {listed(foreign)}, {which} and can run code when it is loaded; save "
        f"network.state_dict() instead of the network, {TRUST}."
    )


def _unreadable(error: Exception) -> CheckpointError:
    return CheckpointError(f"not a checkpoint that PyTorch can read ({_first_line(error)}); copy or download it again.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
