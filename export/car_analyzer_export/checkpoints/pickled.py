"""Reads what torch.save wrote, as a zip archive or in the older format, through PyTorch's weights-only unpickler."""

from __future__ import annotations

import functools
import io
import pickle
import re
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from ..errors import CheckpointError, ExportError, reason
from .audit import ALLOWED, MAX_TEXT, QUANTISED, Audit, ForeignGlobalsError
from .inert import STAND_INS
from .names import named_globals
from .sniff import CUT_OFF, NO_NETWORK, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .archive import Archive

    # Gives the module in which a class is looked up that a pickle calls `__main__.…`.
    Script = Callable[[], types.ModuleType]

# The older format is a row of pickles: a number to know it by, its version, the machine, the content, the storages'
# keys. The storages follow, each after its length.
_LEGACY_PICKLES = 5
_STORAGE_HEADER = 8

# A data set's class is named before what it holds.
_DATA = re.compile(r"(torch\.utils\.data|torchvision\.datasets|datasets|pandas|PIL)\.")

_OWN = "if you made this file yourself"
TRUST = f"or pass --trust-pickle {_OWN}"


def load_zip(file: BinaryIO, size: int, archive: Archive, *, trust_pickle: bool, script: Script | None = None) -> Any:
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
        return _load_trusted(file, script)
    return _load(file, weights_only=True)


def load_legacy(file: BinaryIO, size: int, *, trust_pickle: bool, script: Script | None = None) -> Any:
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
        file.seek(0)
        names, ended = zip(*(named_globals(stream) for _ in range(_LEGACY_PICKLES)), strict=True)  # type: ignore[arg-type]
        if not all(ended) and file.tell() >= size:
            raise CheckpointError(CUT_OFF.format("it ends within its pickle")) from None
        if not trust_pickle:
            raise _refusal(list(dict.fromkeys(name for found in names for name in found))) from None
        return _load_trusted(file, script)
    except CheckpointError:
        _check_size(audit, size)
        raise
    # It would keep whatever was in memory before.
    if not audit.storages.keys() <= audit.texts:
        raise CheckpointError("refused, because it holds a tensor without numbers; get the file from its source again.")
    _check_size(audit, size - file.tell())
    return _load(file, weights_only=True)


def _check_size(audit: Audit, most: int) -> None:
    wanted = sum(_STORAGE_HEADER + count for count in audit.storages.values())
    if wanted > most:
        raise CheckpointError(
            CUT_OFF.format(f"its tensors take {wanted:,} bytes, and the file holds {most:,} for them")
        )


def _load_trusted(file: BinaryIO, script: Script | None) -> Any:
    """Unpickles anything; what the script that saved it defined itself is looked up in `script`."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module != "__main__":
                return super().find_class(module, name)
            place = sys.modules["__main__"] if script is None else script()
            try:
                return functools.reduce(getattr, name.split("."), place)
            except AttributeError:
                raise CheckpointError(_undefined(name, None if script is None else place.__file__)) from None

    module = types.SimpleNamespace(__name__="pickle", Unpickler=Unpickler, load=pickle.load)
    try:
        return _load(file, weights_only=False, pickle_module=module)
    except (AttributeError, ImportError) as error:
        raise CheckpointError(
            f"its pickled network needs code that is not here ({reason(error)}); put that code's folder on "
            "PYTHONPATH, or save network.state_dict() instead of the network."
        ) from error


def _undefined(name: str, file: str | None) -> str:
    wrong = "" if file is None else f", which {file} does not define"
    how = f"as --architecture FILE.py:{name}" if file is None else "as the architecture"
    return (
        f"its pickled network needs '{name}' of the script that saved it{wrong}; pass that script {how}, or save "
        "network.state_dict() instead of the network."
    )


def _load(file: BinaryIO, **options: Any) -> Any:
    file.seek(0)
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", mmap=False, **options)
    except ExportError:
        raise
    # A damaged file surfaces as nearly any error: RuntimeError (zip), EOFError, KeyError, UnpicklingError, ...
    except Exception as error:
        if not options["weights_only"] and isinstance(error, (AttributeError, ImportError)):
            raise
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
    if _DATA.match(foreign[0]):
        return CheckpointError(f"refused, because it names {listed(foreign)}: {NO_NETWORK}.")
    which = "which is no part of plain weights" if len(foreign) == 1 else "which are no part of plain weights"
    scripts = [name.removeprefix("__main__.") for name in foreign if name.startswith("__main__.")]
    trust = f"or pass --trust-pickle and --architecture FILE.py:{scripts[0][:80]}, {_OWN}" if scripts else TRUST
    return CheckpointError(
        f"refused, because it names {listed(foreign)}, {which} and can run code when it is loaded; save "
        f"network.state_dict() instead of the network, {trust}."
    )


def _unreadable(error: Exception) -> CheckpointError:
    return CheckpointError(f"not a checkpoint that PyTorch can read ({reason(error)}); copy or download it again.")
