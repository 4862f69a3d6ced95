"""Loads what torch.save wrote, as a zip archive or in the older format, with PyTorch's weights-only unpickler.

That unpickler runs no code. It can still be made to crash or to compute for hours, on tuples nested without end: the
commands read in a process of their own (`network_process`) for that reason.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import re
import sys
import threading
import types
import warnings
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from ..errors import CheckpointError, ExportError, reason
from ..torchvision_operators import with_torchvision_operators
from .inert import STAND_INS
from .limits import limited_memory
from .pickle_names import PickleNames, read_names
from .sniff import CUT_OFF, NO_NETWORK, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .archive import Archive

    # Returns the module in which a class is looked up that a pickle calls `__main__.…`.
    Script = Callable[[], types.ModuleType]

# Both the allowed types and the limit of memory are those of the whole process.
_LOADING = threading.Lock()

# The older format is a series of pickles: a magic number, its version, the machine, the content, the storages' keys.
# The storages follow.
_LEGACY_PICKLES = 5

# Beside the tensors: what torch.load itself sets up, and the objects of a training script.
_HEADROOM = 1 << 30

# What the weights-only unpickler accepts; for messages.
_PLAIN = re.compile(
    r"torch\.(\w+Storage|storage\.\w+Storage|_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2"
    r"|Tensor|Size|device|nn\.parameter\.Parameter|serialization\._get_layout|per_\w+)"
    r"|collections\.(OrderedDict|Counter)|builtins\.(set|complex|bytearray)|_codecs\.encode"
)
_DTYPES = {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
# The class of a data set is named before its contents.
_DATA = re.compile(r"(torch\.utils\.data|torchvision\.datasets|datasets|pandas|PIL)\.")

_UNREADABLE = "not a checkpoint that PyTorch can read ({}); copy or download it again."
_OWN = "if you made this file yourself"
TRUST = f"or pass --trust-pickle {_OWN}"


def load_pickled(
    file: BinaryIO, size: int, archive: Archive | None, *, trust_pickle: bool, script: Script | None = None
) -> Any:
    """Loads a file of torch.save.

    Args:
        file: The file.
        size: Its bytes.
        archive: Its directory; None for the format that torch.save wrote before PyTorch 1.6.
        trust_pickle: Accept classes of any kind, which can run code.
        script: See `read_checkpoint`.

    Raises:
        CheckpointError: It is damaged or crafted, or would have to be trusted.
    """
    storages = _Storages(size)
    place = "cpu" if archive else storages
    try:
        with _LOADING, _harmless_types_only(), limited_memory(4 * size + _HEADROOM):
            loaded = _load(file, map_location=place, weights_only=True)
    except ExportError:
        raise
    except pickle.UnpicklingError:
        pickles = _names(file, archive)
        if archive is None:
            _check_complete(pickles)
        if trust_pickle:
            return _load_trusted(file, script)
        raise _rejection(pickles) from None
    # A damaged file surfaces as nearly any error: RuntimeError (zip), EOFError, KeyError, TypeError, ...
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise CheckpointError(
                f"rejected, because reading it takes far more memory than its {size:,} bytes; get the file again."
            ) from error
        if archive is None:
            _check_complete(_names(file, None))
        if "EOF" in str(error):
            raise CheckpointError(CUT_OFF.format(reason(error).partition(". ")[0])) from error
        raise CheckpointError(_UNREADABLE.format(reason(error))) from error
    # PyTorch fills the storages whose keys are listed; another one would keep whatever was in memory before.
    if archive is None and len(set(_names(file, None)[-1].texts)) < storages.count:
        raise CheckpointError("rejected, because it holds a tensor without numbers; get the file again.")
    return loaded


class _Storages:
    """Counts the storages as PyTorch allocates them, and stops it once they are larger than the file."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = 0
        self.count = 0

    def __call__(self, storage: torch.UntypedStorage, _location: str) -> torch.UntypedStorage:
        self.count += 1
        self._bytes += storage.nbytes()
        if self._bytes > self._size:
            raise CheckpointError(
                CUT_OFF.format(f"its tensors take {self._bytes:,} bytes or more, and the whole file {self._size:,}")
            )
        return storage


@contextlib.contextmanager
def _harmless_types_only() -> Iterator[None]:
    """Allows the stand-ins, and nothing that this process allowed PyTorch to load before."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def _load(file: BinaryIO, **options: Any) -> Any:
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(file, mmap=False, **options)


def _load_trusted(file: BinaryIO, script: Script | None) -> Any:
    """Unpickles anything; looks up in `script` the classes that the saving script defined itself."""

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
        return with_torchvision_operators(
            lambda: _load(file, map_location="cpu", weights_only=False, pickle_module=module)
        )
    except ExportError:
        raise
    except (AttributeError, ImportError) as error:
        raise CheckpointError(
            f"its pickled network needs code that is not here ({reason(error)}); put that code's folder on "
            "PYTHONPATH, or save network.state_dict() instead of the network."
        ) from error
    except Exception as error:
        raise CheckpointError(_UNREADABLE.format(reason(error))) from error


def _undefined(name: str, file: str | None) -> str:
    wrong = "" if file is None else f", which {file} does not define"
    how = f"as --architecture FILE.py:{name}" if file is None else "as the architecture"
    return (
        f"its pickled network needs '{name}' of the script that saved it{wrong}; pass that script {how}, or save "
        "network.state_dict() instead of the network."
    )


def _names(file: BinaryIO, archive: Archive | None) -> list[PickleNames]:
    file.seek(0)
    if archive is None:
        return [read_names(file) for _ in range(_LEGACY_PICKLES)]
    with zipfile.ZipFile(file) as records:
        return [read_names(io.BytesIO(records.read(f"{archive.folder}data.pkl")))]


def _check_complete(pickles: list[PickleNames]) -> None:
    if not all(one.complete for one in pickles):
        raise CheckpointError(CUT_OFF.format("it ends within its pickle"))


def _rejection(pickles: list[PickleNames]) -> CheckpointError:
    named = dict.fromkeys(name for one in pickles for name in one.classes)
    foreign = [name for name in named if name not in STAND_INS and name not in _DTYPES and not _PLAIN.fullmatch(name)]
    if not foreign and not all(one.complete for one in pickles):
        return CheckpointError(_UNREADABLE.format("its pickle is damaged"))
    if not foreign:
        return CheckpointError(
            "was saved with another pickle protocol than torch.save's own, which cannot be read without running code; "
            f"save it without pickle_protocol=, {TRUST}."
        )
    if _DATA.match(foreign[0]):
        return CheckpointError(f"rejected, because it names {listed(foreign)}: {NO_NETWORK}.")
    which = "which is no part of plain weights" if len(foreign) == 1 else "which are no part of plain weights"
    scripts = [name.removeprefix("__main__.") for name in foreign if name.startswith("__main__.")]
    trust = f"or pass --trust-pickle and --architecture FILE.py:{scripts[0][:80]}, {_OWN}" if scripts else TRUST
    return CheckpointError(
        f"rejected, because it names {listed(foreign)}, {which} and can run code when it is loaded; save "
        f"network.state_dict() instead of the network, {trust}."
    )
