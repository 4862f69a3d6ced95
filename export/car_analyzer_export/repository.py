"""Writes a Triton model repository so that an export appears in it whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from .config import config_texts, label_texts
from .errors import PublishError
from .spec import ENSEMBLE, PREPROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .plan import Plan

_PREPROCESS_VERSION = "1"
# Stands for the version's number until it is known. No model can have this name.
_NEW_VERSION = ".version"
_PREPROCESS_FILES = ("model.py", "photo.py", "view.py")


class Staging:
    """A folder in which an export is put together before it is published."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self._plan = plan

    def version_folder(self, model: str) -> Path:
        """Where a model's new version is put together; it gets its number when it is published."""
        folder = self.folder / model / _NEW_VERSION
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_configs(self) -> None:
        """Writes everything that is not a version of a head: configs, labels and the preprocess step."""
        for model, text in config_texts(self._plan).items():
            _write(self.folder / model / "config.pbtxt", text)
        for model, labels in label_texts(self._plan).items():
            for file, text in labels.items():
                _write(self.folder / model / file, text)
        source = resources.files(f"{__package__}.preprocess")
        for file in _PREPROCESS_FILES:
            text = source.joinpath(file).read_text(encoding="utf-8")
            _write(self.folder / PREPROCESS / _PREPROCESS_VERSION / file, text)
        # An ensemble has no files, but Triton wants to see its version.
        self.version_folder(ENSEMBLE)


@contextlib.contextmanager
def staging(repository: Path, plan: Plan) -> Iterator[Staging]:
    """Opens a staging folder for a repository, and removes it whatever happens.

    Raises:
        PublishError: The repository, or the staging folder beside it, cannot be written.
    """
    with contextlib.ExitStack() as cleanup:
        try:
            repository.mkdir(parents=True, exist_ok=True)
            place = _staging_place(repository)
            with _locked(repository):
                _remove_abandoned(place, repository)
                folder = Path(tempfile.mkdtemp(prefix=_staging_prefix(repository), dir=place))
                cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
                cleanup.enter_context(_locked(folder))
            yield Staging(folder, plan)
        except OSError as error:
            reason = error.strerror or error
            raise PublishError(f"The model repository {repository} cannot be written: {reason}.") from error


def publish(staged: Staging, repository: Path, version: int | None, finish: Callable[[int], None]) -> int:
    """Moves what was staged into the repository.

    All heads and the ensemble get the same version number, so that a client can tell by the ensemble's version which
    export answered it.

    Args:
        staged: A complete export.
        repository: The model repository.
        version: The number to give it; the next free one by default.
        finish: Called with the number before anything moves, to write it where it belongs.

    Returns:
        The version's number.

    Raises:
        PublishError: The version exists already.
        OSError: The repository cannot be written. In both cases it is as it was.
    """
    with _locked(repository):
        models = [path.parent for path in sorted(staged.folder.glob(f"*/{_NEW_VERSION}"))]
        taken = {number for model in models for number in _versions(repository / model.name)}
        number = max(taken, default=0) + 1 if version is None else version
        if number in taken:
            raise PublishError(
                f"{repository} has a version {number} already; leave out --version to get {max(taken) + 1}."
            )
        finish(number)
        _sync(staged.folder)
        _move(staged.folder, repository, number)
    return number


def _move(source: Path, repository: Path, number: int) -> None:
    # Every step can be undone, and a signal waits: between the first rename and the last lie a few milliseconds.
    with _signals_held(), contextlib.ExitStack() as undo:
        for staged in sorted(source.rglob("*")):
            target = repository / staged.relative_to(source)
            if staged.name == _NEW_VERSION:
                target = target.with_name(str(number))
                staged.rename(target)
                undo.callback(target.rename, staged)
            elif staged.is_dir():
                if not target.exists():
                    target.mkdir()
                    undo.callback(target.rmdir)
            elif staged.parent.name != _NEW_VERSION:
                _replace(staged, target, undo)
        undo.pop_all()


def _replace(staged: Path, target: Path, undo: contextlib.ExitStack) -> None:
    before = target.read_bytes() if target.exists() else None
    if before == staged.read_bytes():
        return
    staged.replace(target)
    if before is None:
        undo.callback(target.unlink)
    else:
        undo.callback(target.write_bytes, before)


def _versions(model: Path) -> list[int]:
    return [int(path.name) for path in model.glob("*") if path.is_dir() and path.name.isdecimal()]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _sync(folder: Path) -> None:
    """Makes sure that a power cut after the renames finds the files whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _staging_place(repository: Path) -> Path:
    """Beside the repository, or, if that is a mount of its own, in the one place in it where Triton does not look.

    A rename is atomic on one file system only.
    """
    parent = repository.resolve().parent
    if parent.stat().st_dev == repository.stat().st_dev and os.access(parent, os.W_OK):
        return parent
    inside = repository / ENSEMBLE
    inside.mkdir(exist_ok=True)
    return inside


def _staging_prefix(repository: Path) -> str:
    return f".{repository.resolve().name}.export-"


def _remove_abandoned(place: Path, repository: Path) -> None:
    """Removes what killed exports left; the folder of a living one is locked."""
    for folder in place.glob(f"{_staging_prefix(repository)}*"):
        with contextlib.suppress(BlockingIOError), _locked(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
