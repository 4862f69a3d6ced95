"""Adds a version to a model repository atomically: completely, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from car_analyzer_server import signals

from .. import preprocess
from ..errors import PublishError
from ..spec import ENSEMBLE, PREPROCESS
from .config import config_texts, heads_text, label_texts, views_text
from .versions import (
    CONFIGS,
    RECORD,
    UNFINISHED,
    exported,
    locked,
    on_disk,
    remember,
    serve_from_next_start,
    withdraw,
    write,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from car_analyzer.drift import Reference

    from ..spec import Plan
    from .config import Maps
    from .signature import Signature

# Placeholder for the version's number until it is chosen. No model can have this name.
_NEW_VERSION = ".version"
# File in a version of the preprocess step → its source in `preprocess`.
_PILLOW_FILES = {
    f"{name}.py": f"{name}.py" for name in ("backlog", "guard", "identity", "model", "photo", "photo_log", "view")
}
_DALI_FILES = _PILLOW_FILES | {
    "model.py": "dali_model.py",
    "dali_pipeline.py": "dali_pipeline.py",
    "jpeg_header.py": "jpeg_header.py",
    "pillow_model.py": "model.py",
}


@dataclass(frozen=True)
class Written:
    """The results of writing the networks.

    Attributes:
        records: Network name → its record for `export.json`.
        skipped: Unreadable files in the folder of photos → the reason; see `PhotoFolder`.
    """

    records: dict[str, dict[str, Any]]
    skipped: dict[str, str]


class Staging:
    """A folder in which a version is assembled before it gets its number and is moved into the repository.

    Args:
        folder: Its path.
        networks: The names of the version's networks.

    Attributes:
        configs: Model → its configuration, after `write`.
    """

    def __init__(self, folder: Path, networks: Sequence[str]) -> None:
        self.folder = folder
        self.configs: dict[str, str] = {}
        self._networks = networks

    @property
    def models(self) -> list[str]:
        """The models in the order in which they are moved: the ensemble last, since it needs the others."""
        return [PREPROCESS, *self._networks, ENSEMBLE]

    def version_folder(self, model: str) -> Path:
        """The folder for a model's new version; creates it."""
        folder = self.folder / model / _NEW_VERSION
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(
        self, plan: Plan, number: int, networks: dict[str, str], maps: Maps, drift: Reference | None = None
    ) -> str:
        """Writes everything but the networks: configurations, labels and the preprocess step.

        Args:
            plan: What is exported.
            number: The version's number.
            networks: Network name → SHA-256 of its `model.onnx`.
            maps: The class activation maps of the networks.
            drift: What a gateway compares photos with.

        Returns:
            The export id: 16 hexadecimal digits, a hash of everything that affects the answers.
        """
        source = resources.files(preprocess)
        files = _DALI_FILES if plan.preprocess == "dali" else _PILLOW_FILES
        step = {file: source.joinpath(origin).read_text(encoding="utf-8") for file, origin in files.items()}
        step["views.json"] = views_text(plan)
        answering = json.dumps([step, networks, heads_text(plan)], sort_keys=True)
        export_id = hashlib.sha256(answering.encode()).hexdigest()[:16]
        self.configs = config_texts(plan, number, export_id, maps, drift)
        for model, text in self.configs.items():
            # Stored with the version until it is served: each model has only one config.pbtxt.
            write(self.version_folder(ENSEMBLE) / CONFIGS / f"{model}.pbtxt", text)
        for model, labels in label_texts(plan).items():
            for file, text in labels.items():
                write(self.version_folder(model) / file, text)
        record = json.dumps({"model": PREPROCESS, "version": number, "export_id": export_id}, indent=2) + "\n"
        for file, text in {**step, RECORD: record}.items():
            write(self.version_folder(PREPROCESS) / file, text)
        return export_id


@contextlib.contextmanager
def staging(repository: Path, networks: Sequence[str]) -> Iterator[Staging]:
    """Creates a staging folder for a repository, and removes it in any case. `networks`: see `Staging`.

    Raises:
        PublishError: The repository, or the staging folder beside it, cannot be written.
    """
    with contextlib.ExitStack() as cleanup, writing(repository):
        place = _staging_place(repository)
        with locked(place):
            _remove_abandoned(place, repository)
            folder = Path(tempfile.mkdtemp(prefix=_staging_prefix(repository), dir=place))
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            cleanup.enter_context(locked(folder))
        yield Staging(folder, networks)


def choose_number(repository: Path, models: list[str], wanted: int | None) -> int:
    """Chooses the number of a new version: the same for all models, so that an answer's version identifies the export.

    Raises:
        PublishError: The wanted number is taken.
    """
    # The files of a clean checkout for version 1 are not an export, and are replaced.
    taken = {number for model in models if model != PREPROCESS for number in exported(repository / model)}
    number = max(taken, default=0) + 1 if wanted is None else wanted
    if number in taken:
        raise PublishError(f"{repository} has a version {number} already; leave out --version to get {max(taken) + 1}.")
    return number


def add(
    staged: Staging,
    repository: Path,
    number: int,
    signature: Signature,
    deliver: Callable[[Path, int], None] | None = None,
) -> None:
    """Moves a staged version into the repository and serves it; withdraws it if that fails.

    Args:
        staged: The version.
        repository: The model repository; it must be locked.
        number: The version's number.
        signature: The repository's.
        deliver: Called with the repository and the number, to serve the version now. By default, Triton serves it when
            it starts.

    Raises:
        PublishError: The version cannot be served.
        OSError: The repository cannot be written. It is unchanged.
    """
    with added(staged, repository, number, shown=deliver is not None):
        signature.renew()  # a Triton that starts meanwhile accepts the repository
        if deliver is not None:
            deliver(repository, number)
        else:
            before = on_disk(repository)
            serve_from_next_start(repository, number)
            remember(repository, number, before)


@contextlib.contextmanager
def added(staged: Staging, repository: Path, number: int, *, shown: bool) -> Iterator[None]:
    """Moves a staged version into the repository, where it is not served yet; moves it back if the body fails.

    Args:
        staged: The version.
        repository: The model repository; it must be locked.
        number: The version's number.
        shown: The body may serve the version to clients, so if it fails the number must not be used again.

    Raises:
        OSError: The repository cannot be written. It is unchanged.
    """
    write(staged.version_folder(ENSEMBLE) / UNFINISHED, "")
    _sync(staged.folder)
    undo = contextlib.ExitStack()
    try:
        with signals.deferred():
            for model in staged.models:
                _move(staged, model, repository, number, undo)
        yield
        (repository / ENSEMBLE / str(number) / UNFINISHED).unlink()
    except BaseException as error:
        with signals.deferred():
            undo.close()
            if shown:
                withdraw(repository, number, str(error) or type(error).__name__)
        raise


def _move(staged: Staging, model: str, repository: Path, number: int, undo: contextlib.ExitStack) -> None:
    source, target = staged.version_folder(model), repository / model / str(number)
    if not target.parent.exists():
        # In one rename: Triton does not start on a model without a configuration, or without the version that it names.
        write(source.parent / "config.pbtxt", staged.configs[model])
        source.rename(source.with_name(str(number)))
        source.parent.rename(target.parent)
        undo.callback(target.parent.rename, source.parent)
        return
    if target.exists():
        aside = source.with_name(".before")
        target.rename(aside)
        undo.callback(aside.rename, target)
    source.rename(target)
    undo.callback(target.rename, source)


def _sync(folder: Path) -> None:
    """Makes sure that the files are complete even after a power failure."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _staging_place(repository: Path) -> Path:
    """The folder beside the repository or, if the repository is a mount, the ensemble's folder, which Triton ignores.

    A rename is atomic only within one file system.
    """
    parent = repository.resolve().parent
    if not repository.exists():  # it is created together with its first version
        if not parent.exists():
            parent.mkdir(parents=True)
        return parent
    repository.mkdir(exist_ok=True)  # raises if it is a file
    if parent.stat().st_dev == repository.stat().st_dev and os.access(parent, os.W_OK):
        return parent
    inside = repository / ENSEMBLE
    inside.mkdir(exist_ok=True)
    return inside


def _staging_prefix(repository: Path) -> str:
    return f".{repository.resolve().name}.export-"


def _remove_abandoned(place: Path, repository: Path) -> None:
    """Removes the staging folders of killed exports; that of a running export is locked."""
    for folder in place.glob(f"{_staging_prefix(repository)}*"):
        with contextlib.suppress(BlockingIOError), locked(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
